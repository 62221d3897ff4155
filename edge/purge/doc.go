// Package purge reads purges in each of their forms, checks who may make them, and carries them
// out.
//
// A Request is a purge as a client sends it. It is the body of POST /v1/purge, and an entry of the
// log that all edges of a fleet follow. Parse reads it once, against the sites of the node. It
// returns a Purge, which has everything that later steps need: what the store has to do, and which
// hosts and sites the purge covers. Nothing after Parse reads the text again.
//
// # Forms
//
// Each form has a file. native.go is Kaiku's own API; fastly.go and cloudflare.go are the APIs of
// these two CDNs; varnish.go is PURGE and BAN on the listener for clients. Each makes a Request and
// passes it to the Purger. Expressions become exact tags, URLs, prefixes and hosts, or the request
// is refused.
//
// # Who may purge
//
// Tokens holds the bearer tokens of the admin API. A token has scopes, and may be limited to sites.
// It may then purge URLs, prefixes and hosts of these sites, but no tags and not everything. A
// Grant is what the client of one request may do.
//
// # Guarantees
//
// A purge that was answered with a sequence isn't lost: it is in the log or, without a fleet, in
// the store. Apply applies the entries of the log in order. An entry that it can't read makes
// everything stale, or everything of the site that the entry may cover. It never skips one.
// Requests between edges carry the sender's position in the log (SetPosition), so no edge stores a
// response that is older than a purge that it has applied.
package purge
