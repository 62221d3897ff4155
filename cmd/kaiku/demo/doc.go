// Package demo runs a small fleet in one process: an origin in the USA, an edge there, an edge in
// Finland, and a name server. All of them use real sockets on loopback. Connections between places
// are delayed by the time that light in fibre takes (ocean.go). Site is the site of the origin.
package demo
