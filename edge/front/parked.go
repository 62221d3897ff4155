package front

import (
	"net/http"
	"sync"
)

// A body that a client sends over HTTP/2 or HTTP/3 waits in the edge's memory until the origin
// takes it: as much as the windows of its request and of its connection let in. A client network
// may have 1,024 connections, so what their windows may hold is bounded for each network, and in
// all. It counts from the first byte of a body, or from the header block if that tells the length,
// to the last byte that is read of it, or the end of the request. Over HTTP/1.1 the socket holds
// what is not read.
const (
	maxParked          = 1 << 30 // bytes in all
	MaxParkedOfNetwork = 64 << 20
)

// What clients may send of bodies before it is read, in bytes. The windows of HTTP/3 begin smaller.
const (
	HTTP2RequestWindow    = 256 << 10
	HTTP2ConnectionWindow = 1 << 20
	http3RequestWindow    = 1 << 20
	http3ConnectionWindow = 2 << 20
)

// park counts what may wait of a request's body; see underWay.park.
func (s *Server) park(x *Exchange, from *client) (release func(), status int, why string) {
	switch body := x.body; {
	case body != nil:
		release, status, why = s.conns.underWay.park(from, x.Request.ProtoMajor, x.Request.ContentLength)
		body.release = release
		return release, status, why
	case x.open: // what comes after all is not read
		return s.conns.underWay.park(from, x.Request.ProtoMajor, -1)
	}
	return func() {}, 0, ""
}

// park counts what may wait of a request's body of a length, which is -1 if it is not known. It
// returns what takes that back, and if it is too much the status that the request is refused with,
// and why.
func (u *underWay) park(from *client, proto int, length int64) (release func(), status int, why string) {
	size, connection := int64(HTTP2RequestWindow), int64(HTTP2ConnectionWindow)
	if proto == 3 {
		size, connection = http3RequestWindow, http3ConnectionWindow
	}
	if length >= 0 {
		size = min(size, length)
	}
	if from == nil || proto == 1 || size == 0 {
		return func() {}, 0, ""
	}
	network := from.ofNetwork()
	add := func(n int64) (ofNetwork, inAll int64) {
		sum := from.parked.Add(n)
		held := min(sum, connection) - min(sum-n, connection) // in all no more than the connection's window
		if network != nil {
			ofNetwork = network.parked.Add(held)
		}
		return ofNetwork, u.parked.Add(held)
	}
	switch ofNetwork, inAll := add(size); {
	case ofNetwork > MaxParkedOfNetwork:
		status, why = http.StatusTooManyRequests, "the client's network has as many bodies under way as one may"
	case inAll > maxParked:
		status, why = http.StatusServiceUnavailable, "the edge has as many bodies under way as it may"
	}
	if status != 0 {
		u.refused.Inc()
	}
	return sync.OnceFunc(func() { add(-size) }), status, why
}
