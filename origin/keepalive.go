package origin

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"time"
)

// A server closes a connection that was idle for a while. A request that is under way at that
// moment is lost, and one that is not idempotent fails. Over HTTP/1 many servers announce the idle
// timeout in the Keep-Alive header field. A connection that was idle for almost that long gets no
// further request: its next write fails before anything is sent, so the transport takes another
// connection.

// keepMargin is how long before the server's idle timeout a connection is retired. It allows for
// the network and for the server's clock. For a timeout under two seconds the margin is half of the
// timeout.
const keepMargin = time.Second

// errRetired is returned by a write to a retired connection.
var errRetired = errors.New("the connection may have no further request")

// keepAlive returns how long a connection may be idle according to the Keep-Alive field of a
// response. ok is false if the field gives no timeout.
func keepAlive(h http.Header) (idle time.Duration, ok bool) {
	for _, line := range h["Keep-Alive"] {
		for param := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(param, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "timeout") {
				continue
			}
			seconds, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
			if err != nil {
				continue
			}
			idle = time.Duration(seconds) * time.Second
			return idle - min(keepMargin, idle/2), true
		}
	}
	return 0, false
}

// connOf returns the counted connection below c, which may be wrapped for TLS and HTTP/1. It
// returns nil if c is not counted.
func connOf(c net.Conn) *conn {
	if h, ok := c.(*http1Conn); ok {
		return h.raw
	}
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	own, _ := c.(*conn)
	return own
}

// learnKeepAlive remembers the idle timeout that a response announces.
func (c *conn) learnKeepAlive(resp *http.Response) {
	if c == nil || resp.ProtoMajor != 1 {
		return
	}
	if idle, ok := keepAlive(resp.Header); ok {
		c.idleLimit.Store(int64(idle) + 1)
	}
}

// claim reports whether a connection that the transport chose may have the next request: it was not
// idle for too long, and no unread data is on it. If not, claim retires the connection, so that its
// next write fails.
func (c *conn) claim(info httptrace.GotConnInfo) bool {
	if c == nil || !info.Reused {
		return true
	}
	keep := c.idleLimit.Load()
	h, ok := info.Conn.(*http1Conn)
	if (keep == 0 || info.IdleTime < time.Duration(keep-1)) && (!ok || h.isClean()) {
		return true
	}
	c.retired.Store(true)
	return false
}
