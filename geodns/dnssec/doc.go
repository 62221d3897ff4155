// Package dnssec implements what signing a zone needs: keys and their files (ECDSA P-256, RFC
// 6605), signatures (RFC 4034), the canonical order of names, and the NSEC records of compact
// denial (RFC 9824). It knows nothing of zones or queries.
//
// Names are in wire format and in lower case, as in package geodns. Functions do no I/O.
package dnssec
