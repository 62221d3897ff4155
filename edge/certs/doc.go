// Package certs keeps the certificates that an edge presents to its clients.
//
// Certificates come from files or from an authority that speaks ACME (RFC 8555). For a name that
// both have, the file wins. Certificates.Get is the GetCertificate of the edge's TLS configuration.
//
// # One edge orders for all
//
// The edges of a fleet share a Vault, which the control plane keeps encrypted. The edge that holds
// a lease in it orders and renews certificates and stores them there. The others load them from
// there. If that edge dies, another one takes the lease within 15 seconds.
//
// Each edge also keeps copies on its own disk. It uses them when it can't reach the Vault.
//
// # How a name is proved
//
// A name of a zone that this fleet serves is proved by DNS-01: the name servers answer the
// challenge. Other names are proved by HTTP-01 or TLS-ALPN-01. The authority may connect to any
// edge, so the answers to these challenges are in the Vault too.
package certs
