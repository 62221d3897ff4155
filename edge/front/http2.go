package front

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front/http2"
)

// newHTTP2 returns the edge's own HTTP/2 server, with the limits that net/http's server has.
func (s *Server) newHTTP2() *http2.Server {
	h := &http2.Server{
		Handler: s, Log: s.Log, ConnContext: withClient, ExtendedConnect: true,
		Limits: http2.Limits{
			MaxStreams: MaxStreams, MaxHeaderBytes: MaxHeaderBytes, StreamWindow: HTTP2RequestWindow,
			ConnWindow:    HTTP2ConnectionWindow,
			HeaderTimeout: HeaderTimeout, IdleTimeout: IdleTimeout, PingAfter: pingAfter, PingTimeout: pingTimeout,
			WriteTimeout: SendTimeout,
			Resets:       ResetsFree, ResetBytes: resetBytes,
		},
		Idle: s.conns.setIdleHTTP2,
		Flooding: func(c net.Conn, why string) {
			s.conns.flooding.Inc()
			s.Log.Debug("connection closed", "client", c.RemoteAddr(), "why", why)
		},
		Panicked: s.panicked,
	}
	if s.Ready != nil {
		h.Ready = &readyHTTP2{server: s}
	}
	return h
}

// heard moves an idle client to the end of the idle list, because it has just made a request.
func (c *conns) heard(from *client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from.place != nil {
		c.setIdle(from, true)
	}
}

// setIdleHTTP2 sets whether a connection of the edge's own HTTP/2 server is idle.
func (c *conns) setIdleHTTP2(conn net.Conn, idle bool) {
	if cc := asClientConn(conn); cc != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.setIdle(&cc.client, idle)
	}
}

// serveHTTP2 serves the connection over HTTP/2 until it ends.
func (c *laneConn) serveHTTP2(conn *tls.Conn) {
	l := c.lane
	l.mu.Lock()
	c.handedOff = true
	l.drop(c)
	l.mu.Unlock()
	if err := conn.SetDeadline(time.Time{}); err != nil { // the lane set one
		_ = conn.Close()
		return
	}
	c.gather = new(gather)
	l.http2.ServeConn(context.Background(), &gatheringTLS{conn, c.clientConn, c.raw})
}
