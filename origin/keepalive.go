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

// A server closes a connection that was idle for a while. A request that is on its way meanwhile is
// lost, and one that may not be sent twice fails. Over HTTP/1 many servers say in the field
// Keep-Alive for how long they wait. A connection that has been idle for nearly as long gets no
// further request: its next write fails before anything is sent, so that the transport takes
// another connection.

// keepMargin is how much earlier than a server a connection is given up: what a response and a
// request take on their way, and what the server's clock is off by. It is half of a shorter time.
const keepMargin = time.Second

// errIdle is the failure of a write to such a connection.
var errRetired = errors.New("the connection may have no further request")

// keepAlive returns for how long a connection may be idle by the fields of a response. ok is false
// if they don't say.
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

// connOf is the connection to a server below TLS; nil if it is none that counts.
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

// learn takes what the server says of the connection that a response came on.
func (c *conn) learnKeepAlive(resp *http.Response) {
	if c == nil || resp.ProtoMajor != 1 {
		return
	}
	if idle, ok := keepAlive(resp.Header); ok {
		c.idleLimit.Store(int64(idle) + 1)
	}
}

// take reports whether a connection that the transport chose may have a request: it was not idle
// for too long, and nothing is left on it. If not, the next write to it fails.
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
