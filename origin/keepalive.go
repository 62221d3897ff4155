package origin

import (
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A server closes a connection that was idle for a while. A request that is under way at that
// moment is lost, and one that is not idempotent fails. Over HTTP/1 many servers announce the idle
// timeout in the Keep-Alive header field. A connection that was idle for almost that long gets no
// further request.

// keepMargin is how long before the server's idle timeout a connection is retired. It allows for
// the network and for the server's clock. For a timeout under two seconds the margin is half of the
// timeout.
const keepMargin = time.Second

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

// connOf returns the TCP connection below c, which may be wrapped for TLS. It returns nil if the
// pool has not opened it.
func connOf(c net.Conn) *conn {
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
