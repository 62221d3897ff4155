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
// Hits answers the hit lane: plain requests for fresh responses of the RAM tier, whose header block
// was rendered before. What it decides is what the look-up decides for such a request.
//
// # What holds
//
// At most one fetch of a key, or of a slice, is under way at an edge that others may join. What a
// request gets is not older than any purge that this edge had applied when the request came. A
// client never gets a part for the whole: a response that can't be finished ends its connection.
// What is remembered of keys (ttlset, failures, readers) is bounded, as clients choose keys.
//
// # What origins see
//
// Fields by which a client could impersonate a proxy don't pass (requestfields.go). Everything that
// comes from an origin is cleaned in one place, fetch in responsefields.go.
package cache
