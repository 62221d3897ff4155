package edge

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// protocol is what the clients of a test speak.
type protocol string

const (
	protoHTTP1   protocol = "http1" // without TLS
	protoTLS1    protocol = "tls1"  // HTTP/1.1 over TLS
	protoHTTP2   protocol = "http2"
	protoHTTP2Go protocol = "http2go" // to the server of net/http
	protoHTTP3   protocol = "http3"
)

func (p protocol) secure() bool { return p != "" && p != protoHTTP1 }

func (p protocol) scheme() string {
	if p.secure() {
		return "https"
	}
	return "http"
}

// overProtocols runs a test over some protocols, or over all: the edge behaves alike over each. The
// race detector makes each run slow, so it sees only the two whose code is the edge's own.
func overProtocols(t *testing.T, test func(*testing.T, protocol), some ...protocol) {
	if len(some) == 0 {
		some = []protocol{protoHTTP1, protoHTTP2, protoTLS1, protoHTTP2Go, protoHTTP3}
	}
	for _, p := range some {
		if raced && p != protoHTTP1 && p != protoHTTP2 {
			continue
		}
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

// overHTTP2 runs a test of HTTP/2 itself with our server and with net/http's.
func overHTTP2(t *testing.T, test func(*testing.T, protocol)) {
	for _, p := range []protocol{protoHTTP2, protoHTTP2Go} {
		t.Run(string(p), func(t *testing.T) { test(t, p) })
	}
}

// newEdge starts an edge for the host www.example whose origin is h, with a client that speaks the
// protocol. change, if any, changes what is started.
func (p protocol) newEdge(t testing.TB, h http.HandlerFunc, change ...func(*Server, *site.Site)) *testEdge {
	t.Helper()
	e := &testEdge{t: t, protocol: p}
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.hits.Add(1)
		h(w, r)
	}))
	t.Cleanup(o.Close)
	e.start(o.URL, t.TempDir(), change...)
	return e
}

// newClient makes a client with connections of its own. It takes any host to the edge, and changes
// nothing on the way.
func (e *testEdge) newClient() *http.Client { return e.newClientOf(e.protocol) }

// newClientOf makes a client of a protocol.
func (e *testEdge) newClientOf(p protocol) *http.Client {
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if p == protoHTTP3 {
		transport := &http3.Transport{TLSClientConfig: e.trust(), DisableCompression: true,
			// What a slow reader has not read is to be the edge's to keep, not the client's.
			QUICConfig: &quic.Config{InitialStreamReceiveWindow: 64 << 10, MaxStreamReceiveWindow: 64 << 10,
				MaxConnectionReceiveWindow: 4 << 20, InitialConnectionReceiveWindow: 4 << 20},
			Dial: func(ctx context.Context, _ string, conf *tls.Config, q *quic.Config) (*quic.Conn, error) {
				conf = conf.Clone()
				conf.ServerName = "www.example"
				return quic.DialAddr(ctx, e.SecureAddr().String(), conf, q)
			}}
		e.t.Cleanup(func() { _ = transport.Close() })
		client.Transport = transport
		return client
	}
	addr := e.Addr().String()
	if p.secure() {
		addr = e.SecureAddr().String()
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
		DisableCompression: true,
		ForceAttemptHTTP2:  p == protoHTTP2 || p == protoHTTP2Go,
		HTTP2:              &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}, // as above
	}
	if p.secure() {
		transport.TLSClientConfig = e.trust()
	}
	e.t.Cleanup(transport.CloseIdleConnections)
	client.Transport = transport
	return client
}
