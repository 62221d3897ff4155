// Package demo shows what Kaiku is for in one process: an origin in the USA, an edge there and one
// in Finland, and a name server, all over real sockets on loopback. Connections between places take
// the time that light in fibre would (ocean.go). Site is the origin's site.
package demo
