package front

import (
	"net/http"
	"sync"
)

// A body that a client sends over HTTP/2 or HTTP/3 waits in the edge's memory until the origin
// takes it. The windows of its request and of its connection limit how much that is. A client
// network may have 1,024 connections, so the sum of the windows is bounded for each network and in
// all. A body counts from its first byte, or from the header block if that states its length. It
// counts until its last byte is read or the request ends. Over HTTP/1.1, unread bytes stay in the
// socket.
const (
	maxParked          = 1 << 30  // bytes in all
	MaxParkedOfNetwork = 64 << 20 // bytes of one client network
)

// The windows: how many bytes of bodies clients may send before the edge reads them. The windows of
// HTTP/3 begin smaller.
const (
	HTTP2RequestWindow    = 256 << 10
	HTTP2ConnectionWindow = 1 << 20
	http3RequestWindow    = 1 << 20
	http3ConnectionWindow = 2 << 20
)

// park counts the body of a request; see underWay.park.
func (s *Server) park(x *Exchange, from *client) (release func(), status int, why string) {
	switch body := x.body; {
	case body != nil:
		release, status, why = s.conns.underWay.park(from, x.Request.ProtoMajor, x.Request.ContentLength)
		body.release = release
		return release, status, why
	case x.open, x.WantsTunnel(): // later bytes are not read, or the tunnel reads them
		return s.conns.underWay.park(from, x.Request.ProtoMajor, -1)
	}
	return func() {}, 0, ""
}

// park counts a body of a given length, which is -1 if unknown. It returns the function that takes
// the count back. If the body is one too many, it also returns the status that the request is
// refused with, and why.
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
		held := min(sum, connection) - min(sum-n, connection) // the sum is at most the connection's window
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
