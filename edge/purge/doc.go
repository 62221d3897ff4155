// Package purge is what a purge is, in each of the forms in which it comes, and who may make one.
//
// A Request is a purge as somebody asks for it: the body of POST /v1/purge, and the entry of the
// log that all edges of a fleet follow. Parse reads it once, against the sites of the node. The
// Purge that it returns has all that later steps want to know: what the store is to do, and which
// hosts and sites it is of. Nothing after Parse looks at the text again.
//
// # Forms
//
// Each form has a file: native.go is Kaiku's own API, fastly.go and cloudflare.go are the APIs of
// these two, varnish.go is PURGE and BAN on the listener for clients. Each makes a Request of what
// comes and has the Purger do it. Expressions become exact tags, URLs, prefixes and hosts, or the
// request is refused.
//
// # Who may
//
// Tokens has the bearer tokens of the admin API. A token is for some scopes, and may be limited to
// some sites: it then purges URLs, prefixes and hosts of these sites, and neither tags nor
// everything. A Grant is what the client of one request may do.
//
// # What holds
//
// A purge that is answered with a sequence can't be lost: it is in the log, or, without a fleet, in
// the store. Apply does what the log holds, in its order. An entry that it does not understand
// makes everything stale, or everything of the site that the entry may be of; it is never skipped.
// The position in the log travels with requests between edges (SetPosition), so that none stores an
// answer that is older than a purge that it has applied.
package purge
