package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// certificate returns a certificate for example.com, and the roots that trust it.
var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.TLS.Certificates[0], roots
})

// testServer is a server over TLS.
type testServer struct {
	*Server
	t    testing.TB
	addr string
	done sync.WaitGroup
}

// start starts a server, which ends with the test.
func start(t testing.TB, h http.HandlerFunc, change ...func(*Server)) *testServer {
	t.Helper()
	s := &testServer{Server: &Server{Handler: h}, t: t}
	for _, f := range change {
		f(s.Server)
	}
	cert, _ := certificate()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.done.Go(func() {
				secure := tls.Server(nc, conf)
				if secure.HandshakeContext(context.Background()) != nil {
					_ = nc.Close()
					return
				}
				s.ServeConn(context.Background(), secure)
			})
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		_ = s.Close()
		s.done.Wait() // ServeConn returns when the handlers of its connection have
	})
	return s
}

// client returns a client of net/http with a connection of its own.
func (s *testServer) client() *http.Client {
	_, roots := certificate()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.addr)
		}}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// get requests a path, and returns the response and its body.
func get(t testing.TB, c *http.Client, path string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get("https://example.com" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// rawClient is a client that sends any frames, valid or not.
type rawClient struct {
	t testing.TB
	net.Conn
	*xhttp2.Framer
	buf bytes.Buffer
	enc *hpack.Encoder
}

// dial connects, and sends the preface with settings.
func (s *testServer) dial(settings ...xhttp2.Setting) *rawClient {
	s.t.Helper()
	_, roots := certificate()
	nc, err := tls.Dial("tcp", s.addr,
		&tls.Config{RootCAs: roots, ServerName: "example.com", NextProtos: []string{"h2"}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	c := newRawClient(s.t, nc)
	if _, err := io.WriteString(nc, xhttp2.ClientPreface); err != nil {
		s.t.Fatal(err)
	}
	c.must(c.WriteSettings(settings...))
	return c
}

func newRawClient(t testing.TB, nc net.Conn) *rawClient {
	c := &rawClient{t: t, Conn: nc, Framer: xhttp2.NewFramer(nc, nc)}
	c.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.buf)
	return c
}

func (c *rawClient) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// headersOf returns the header block of a request. more are names and values of further fields.
func (c *rawClient) headersOf(method, path string, more ...string) []byte {
	c.buf.Reset()
	fields := append([]string{":method", method, ":scheme", "https", ":authority", "example.com", ":path", path},
		more...)
	for i := 0; i < len(fields); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return c.buf.Bytes()
}

// ask sends the header block of a request.
func (c *rawClient) ask(id uint32, end bool, method, path string, more ...string) {
	c.t.Helper()
	c.must(c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: c.headersOf(method, path, more...),
		EndHeaders: true, EndStream: end}))
}

// until reads frames until f returns true.
func (c *rawClient) until(what string, f func(xhttp2.Frame) bool) {
	c.t.Helper()
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			c.t.Fatalf("%v while waiting for %s", err, what)
		}
		if f(frame) {
			return
		}
	}
}

// ended reads up to the end of the connection, and returns the error code of the last GOAWAY. told
// reports whether there was one.
func (c *rawClient) ended() (code xhttp2.ErrCode, told bool) {
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				c.t.Errorf("the connection did not end: %v", err)
			}
			return code, told
		}
		if g, ok := frame.(*xhttp2.GoAwayFrame); ok {
			code, told = g.ErrCode, true
		}
	}
}

// resetOf waits for the reset of a stream.
func (c *rawClient) resetOf(id uint32) (code xhttp2.ErrCode) {
	c.t.Helper()
	c.until("a reset", func(f xhttp2.Frame) bool {
		r, ok := f.(*xhttp2.RSTStreamFrame)
		if ok && r.StreamID == id {
			code = r.ErrCode
			return true
		}
		return false
	})
	return code
}
