// Package httpcache makes the decisions of a shared HTTP cache: RFC 9111, the parts of RFC 9110
// that a cache evaluates, RFC 5861, RFC 8246, RFC 9211 and RFC 9213. All functions are pure. They
// take parsed fields and the current time as arguments, do no I/O and read no clock.
//
// For a request, Decide reports whether a Stored response may be used as it is, may be used while
// it is revalidated, or must be validated first. NotModified and ParseRanges determine which part
// of it is sent. Storable reports whether a response of the origin may be stored.
//
// Target identifies what a request is for, and Key identifies a response in the store. Input from
// outside is parsed into these values once.
package httpcache
