// Package cache answers a request from the store, and from the origin where something is missing.
// It knows nothing of sockets: a request comes as a front.Exchange, which is a ResponseWriter too.
//
// # The way of a request
//
// Serve makes a key of the request's target and looks it up (lookup.go, objects.go). A fresh
// response is sent from the store (respond.go, content.go); a stale one is validated, before or,
// where allowed, after it is sent. On a miss the request joins the flight of its key (follow.go):
// one fetch from the origin that is stored as it comes (fetch.go, flight.go), and that every
// waiting client follows at its own pace. Methods other than GET and HEAD, and responses that can't
// be stored, are passed through (pass.go). What may be stored and used is decided in httpcache;
// this package does it.
//
// Hits serves the hit lane: plain requests for fresh responses of the RAM tier, whose header block
// is rendered in advance. For such a request, Hits and lookup decide alike.
//
// # What holds
//
// An edge has at most one fetch of a key, or of a slice, that other requests may join. A response
// is never older than the purges that this edge had applied when the request arrived. A client
// never takes a part of a body for the whole: if the edge can't finish a response, it closes the
// connection. All state by key (ttlset, failures, readers) is bounded, because clients choose keys.
//
// # What origins see
//
// Header fields by which a client could impersonate a proxy are removed (requestfields.go). All
// responses of origins are cleaned in one place, fetch in responsefields.go.
package cache
