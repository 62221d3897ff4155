package front

import (
	"context"
	"crypto/tls"
	"math"
	"net"
	"net/http"
	"sync"

	"github.com/kaiku-cdn/kaiku/edge/front/http2"
)

// peerWindow is how many bytes of bodies another edge may send on a connection before this one
// reads them. Few of its requests have a body: most of those go straight to the origin.
const peerWindow = 1 << 20

// peerServer is an http.Server for other edges. Connections over HTTP/2 are for the edge's own
// server of that, unless it is nil.
type peerServer struct {
	*http.Server
	listener *peerListener
	http2    *http2.Server
}

// newPeers makes the server of a listener for other edges.
func (s *Server) newPeers(l net.Listener) *peerServer {
	p := &peerServer{Server: NewHTTP(http.HandlerFunc(s.servePeer), s.Log)}
	p.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxPeerStreams}
	var serveHTTP2 func(*tls.Conn)
	if s.OwnHTTP2 {
		p.http2 = s.newPeerHTTP2()
		serveHTTP2 = s.servePeerHTTP2(p.http2)
	}
	p.listener = newPeerListener(l, s.PeerTLS, serveHTTP2)
	return p
}

// newPeerHTTP2 returns the edge's own HTTP/2 server for other edges. They may cancel any number of
// requests, because their clients may.
func (s *Server) newPeerHTTP2() *http2.Server {
	return &http2.Server{
		Handler: http.HandlerFunc(s.servePeer), Log: s.Log, Panicked: s.panicked,
		Limits: http2.Limits{
			MaxStreams: maxPeerStreams, MaxHeaderBytes: MaxHeaderBytes, StreamWindow: peerWindow,
			ConnWindow:    peerWindow,
			HeaderTimeout: HeaderTimeout, IdleTimeout: IdleTimeout, PingAfter: pingAfter, PingTimeout: pingTimeout,
			WriteTimeout: SendTimeout, Resets: math.MaxInt,
		},
	}
}

// servePeerHTTP2 returns the function that serves a connection of another edge until it ends. A
// panic ends the connection only.
func (s *Server) servePeerHTTP2(h *http2.Server) func(*tls.Conn) {
	return func(conn *tls.Conn) {
		defer func() {
			if p := recover(); p != nil {
				s.Panics.Caught("a connection of another edge", p, "edge", conn.RemoteAddr())
				_ = conn.Close()
			}
		}()
		h.ServeConn(context.Background(), conn)
	}
}

// serve serves the listener until Shutdown or Close.
func (p *peerServer) serve() error { return p.Serve(p.listener) }

// Shutdown closes the listener, and drains the connections.
func (p *peerServer) Shutdown(ctx context.Context) error {
	var wg sync.WaitGroup
	if p.http2 != nil {
		wg.Go(func() { _ = p.http2.Shutdown(ctx) })
	}
	err := p.Server.Shutdown(ctx)
	wg.Wait()
	return err
}

// Close ends the listener and the connections at once.
func (p *peerServer) Close() error {
	err := p.Server.Close()
	if p.http2 != nil {
		_ = p.http2.Close()
	}
	return err
}
