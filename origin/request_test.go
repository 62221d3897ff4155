package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestRequestAsSent(t *testing.T) {
	saw := make(chan *http.Request, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { saw <- r }))
	defer s.Close()
	for _, c := range []struct {
		name, base, host string
		u                *url.URL
		target, hostSent string
	}{
		{"plain", "", "", &url.URL{Path: "/a", RawQuery: "x=1"}, "/a?x=1", "www.example"},
		{"escapes", "", "", &url.URL{Path: "/a/b", RawPath: "/a%2Fb", RawQuery: "x=%41&y=a|b"}, "/a%2Fb?x=%41&y=a|b",
			"www.example"},
		{"empty query", "", "", &url.URL{Path: "/a", ForceQuery: true}, "/a?", "www.example"},
		{"two slashes", "", "", &url.URL{Path: "//a//b"}, "//a//b", "www.example"},
		{"bytes that url would encode", "", "", &url.URL{Opaque: "/a|b", RawQuery: "c"}, "/a|b?c", "www.example"},
		{"a host of its own", "", "origin.example:8443", &url.URL{Path: "/a"}, "/a", "origin.example:8443"},
		// Only scheme, host and port of a server's URL are used.
		{"a server with a path", "/base?q#f", "", &url.URL{Path: "/a", RawQuery: "x"}, "/a?x", "www.example"},
		{"a request for another server", "", "", &url.URL{Scheme: "https", Host: "192.0.2.1", Path: "/a"}, "/a",
			"www.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL+c.base)}, Host: c.host})
			r := request(t, "GET", "/", "")
			r.URL = c.u
			r.Header.Set("X-Kept", "1")
			before := *c.u
			if _, err := fetchBody(t, p, r); err != nil {
				t.Fatal(err)
			}
			got := <-saw
			if got.RequestURI != c.target || got.Host != c.hostSent || got.Header.Get("X-Kept") != "1" {
				t.Errorf("the server sees %q, Host %q, %v, want %q, %q", got.RequestURI, got.Host, got.Header, c.target,
					c.hostSent)
			}
			if *c.u != before || r.Host != "www.example" {
				t.Errorf("the request itself was changed: %v, Host %q", r.URL, r.Host)
			}
		})
	}
}

// The pool asks for no compression and passes bodies on unchanged.
func TestNoCompression(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v, ok := r.Header["Accept-Encoding"]; ok {
			t.Errorf("Accept-Encoding is made up: %q", v)
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "not gzip at all")
	}))
	defer s.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}})
	if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "not gzip at all" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestStartFails(t *testing.T) {
	for _, raw := range []string{"", "/a", "ftp://host", "host:80", "http://", "//host"} {
		u, _ := url.Parse(raw)
		if err := (&Pool{Servers: []Server{{URL: u}}}).Start(); err == nil {
			t.Errorf("%q: a pool starts", raw)
		}
	}
	if err := (&Pool{Servers: []Server{{}}}).Start(); err == nil {
		t.Error("without a URL a pool starts")
	}
	if err := (&Pool{}).Start(); err == nil {
		t.Error("without servers a pool starts")
	}
}

func TestTimeouts(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter,
		r *http.Request) {
		<-r.Context().Done()
	}))
	defer silent.Close()
	blocked := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	// This listener accepts connections but never does a TLS handshake.
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	const short = 30 * time.Millisecond
	for _, c := range []struct {
		name string
		pool *Pool
	}{
		{"no header block", &Pool{Servers: []Server{serverAt(t, silent.URL)}, FirstByteTimeout: short}},
		{"no connection", &Pool{Servers: []Server{serverAt(t, silent.URL)}, ConnectTimeout: short, Dial: blocked}},
		{"no handshake", &Pool{Servers: []Server{serverAt(t, "https://"+mute.Addr().String())}, ConnectTimeout: short}},
		{"all of them", &Pool{Servers: []Server{serverAt(t, silent.URL), serverAt(t, silent.URL)}, Retries: 1,
			FirstByteTimeout: short}},
		{"one of them, the other is down", &Pool{Servers: []Server{serverAt(t, silent.URL), serverAt(t, closedURL(t))},
			Retries: 1, FirstByteTimeout: short}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := fetchBody(t, startPool(t, c.pool), request(t, "GET", "/", ""))
			if err == nil || !IsTimeout(err) || Reason(err) != "timeout" {
				t.Errorf("error %v, timeout %v, reason %q", err, IsTimeout(err), Reason(err))
			}
		})
	}
}

func TestReason(t *testing.T) {
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, closedURL(t))}})
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); Reason(err) != "connect-failed" || IsTimeout(err) {
		t.Errorf("down: %q of %v", Reason(err), err)
	}

	p = startPool(t, &Pool{Servers: []Server{serverAt(t, "http://origin.invalid")},
		Dial: func(_ context.Context, network, addr string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: network,
				Err: &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}}
		}})
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); Reason(err) != "dns-error" {
		t.Errorf("no such name: %q of %v", Reason(err), err)
	}

	garbage, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	go func() {
		for {
			conn, err := garbage.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024)) // data sent before the request would not count as a response
			_, _ = io.WriteString(conn, "220 mail.example ESMTP\r\n")
			conn.Close()
		}
	}()
	p = startPool(t, &Pool{Servers: []Server{serverAt(t, "http://"+garbage.Addr().String())}})
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); Reason(err) != "connection-error" || IsTimeout(err) {
		t.Errorf("no HTTP: %q of %v", Reason(err), err)
	}
	if got := Reason(errors.New("something else")); got != "connection-error" {
		t.Errorf("another error: %q", got)
	}
}

// Over TLS, the Host is the SNI and the name to verify.
func TestTLSName(t *testing.T) {
	names := make(chan string, 1)
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- h.ServerName
		return nil, nil
	}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	for host, want := range map[string]string{"": "www.example", "origin.example": "origin.example",
		"origin.example:8443": "origin.example"} {
		p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, Host: host})
		_, err := fetchBody(t, p, request(t, "GET", "/", ""))
		if Reason(err) != "tls-certificate-error" { // the certificate is from httptest
			t.Errorf("Host %q: reason %q of %v", host, Reason(err), err)
		}
		if got := <-names; got != want {
			t.Errorf("Host %q: SNI is %q, want %q", host, got, want)
		}
	}
}

// Ports other than the scheme's default are kept, and IPv6 addresses are in brackets.
func TestAddress(t *testing.T) {
	for raw, want := range map[string]string{
		"http://a.example": "a.example:80", "https://a.example": "a.example:443",
		"http://a.example:8080": "a.example:8080",
		"https://[2001:db8::1]": "[2001:db8::1]:443", "http://[::1]:81": "[::1]:81",
	} {
		dialled := ""
		p := startPool(t, &Pool{Servers: []Server{serverAt(t, raw)},
			Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
				dialled = addr
				return nil, errors.New("enough")
			}})
		if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err == nil || dialled != want ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: dialled %q, want %q; error %v", raw, dialled, want, err)
		}
	}
}

// A server that prefers HTTP/2 gets a request for a WebSocket over HTTP/1.1, on a connection of its
// own.
func TestUpgradeOverHTTP1(t *testing.T) {
	url, conf := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(w, r.Proto)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("the upgrade came over %s: %v", r.Proto, err)
			return
		}
		defer c.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nyes")
		_ = rw.Flush()
	}, true, 1<<20)
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, url)}, TLS: conf, Host: "example.com"})
	for range 2 {
		if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "HTTP/2.0" {
			t.Errorf("a request came over %q, %v", got, err)
		}
		r := request(t, "GET", "/", "")
		r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
		if got, err := fetchBody(t, p, r); got != "yes" {
			t.Errorf("the upgrade: %q, %v", got, err)
		}
	}
}
