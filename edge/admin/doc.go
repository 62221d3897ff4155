// Package admin is the admin listener of a node: the HTTP API for operators, and metrics.
//
// Every node may have one. On an edge it also explains, warms and reports what is stored; on other
// nodes, whose Server has no Edge, it answers these requests with 404. The API is described by
// openapi.json, which GET /v1/openapi.json returns. A test compares it with the routes and types.
//
// A request needs a token with the scope of its endpoint; package purge has the tokens, and the
// endpoints that purge. Without any token, the listener serves only clients of the same machine.
package admin
