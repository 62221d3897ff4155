// Package httpcache holds the decisions of a shared HTTP cache: RFC 9111, the parts of RFC 9110
// that a cache evaluates, RFC 5861, RFC 8246 and RFC 9211. Everything here is a pure function of
// parsed fields and a time that the caller passes in; there is no I/O and no clock.
//
// A request is answered so: Decide reports whether a Stored response may be used as it is, may be
// used while it is validated, or must be validated first; Precondition and ParseRanges say which
// part of it answers the request; Storable reports whether what an origin sent may be kept.
//
// What a request is for is a Target, and what a response is stored by is its Key: both are values
// that text from outside is parsed into once.
package httpcache
