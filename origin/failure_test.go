package origin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// selfSigned returns a self-signed certificate and a pool that trusts it.
func selfSigned(t *testing.T, until time.Time, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// secureServer starts a TLS server with the given configuration. Its responses are empty.
func secureServer(t *testing.T, conf *tls.Config) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = conf
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// newRawServer accepts connections, reads once from each and calls do.
func newRawServer(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Read(make([]byte, 4096))
				do(c)
			}()
		}
	}()
	return l.Addr().String()
}

// A failureHint is a kind of failure, and what its hint says.
type failureHint struct {
	name, server, at string // the URL in the fleet file, and the address that is really dialled
	pool             *Pool
	want             []string
}

// tlsHints are the failures of TLS.
func tlsHints(t *testing.T) []failureHint {
	good, roots := selfSigned(t, time.Now().Add(time.Hour), "origin.test", "*.pages.test")
	ended, endedRoots := selfSigned(t, time.Now().Add(-time.Hour), "origin.test")
	names := make([]string, 9)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.test", i)
	}
	several, severalRoots := selfSigned(t, time.Now().Add(time.Hour), names...)
	secure := secureServer(t, &tls.Config{Certificates: []tls.Certificate{good}})
	none := secureServer(t, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }},
			nil
	}})
	wantsClient := secureServer(t,
		&tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAnyClientCert})
	plain := newServer(t, "plain")
	return []failureHint{
		{"certificate for another name", "https://www.test", secure, &Pool{TLS: &tls.Config{RootCAs: roots}},
			[]string{"is for origin.test, *.pages.test, not for www.test", "origin.servers", "origin.sni"}},
		{"certificate for another name than host", "https://origin.test", secure,
			&Pool{TLS: &tls.Config{RootCAs: roots}, Host: "www.test"}, []string{"not for www.test",
				"origin.host is another name", "origin.sni"}},
		{"certificate for another name than sni", "https://origin.test", secure,
			&Pool{TLS: &tls.Config{RootCAs: roots}, SNI: "www.test"}, []string{"not for www.test",
				"correct origin.sni"}},
		{"certificate for another name than the client's host", "https://192.0.2.1", secure,
			&Pool{TLS: &tls.Config{RootCAs: roots}}, []string{"not for www.example", "set origin.sni"}},
		{"certificate for many names", "https://www.test",
			secureServer(t, &tls.Config{Certificates: []tls.Certificate{several}}),
			&Pool{TLS: &tls.Config{RootCAs: severalRoots}}, []string{"n0.test, n1.test", "n5.test and 3 more,"}},
		{"unknown authority", "https://origin.test", secure, &Pool{TLS: &tls.Config{RootCAs: severalRoots}},
			[]string{"origin.ca"}},
		{"certificate that ended", "https://origin.test",
			secureServer(t, &tls.Config{Certificates: []tls.Certificate{ended}}),
			&Pool{TLS: &tls.Config{RootCAs: endedRoots}}, []string{"is valid from", "renew it"}},
		{"no certificate for the name", "https://origin.test", none, &Pool{},
			[]string{"refuses the TLS handshake", "origin.sni"}},
		{"a client certificate is wanted", "https://origin.test", wantsClient, &Pool{TLS: &tls.Config{RootCAs: roots}},
			[]string{"origin.client_certificate"}},
		{"plain HTTP for https", "https://origin.test", plain.Listener.Addr().String(), &Pool{},
			[]string{"speaks plain HTTP", "http://"}},
		{"something else for https", "https://origin.test",
			newRawServer(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 mail.test ESMTP\r\n") }), &Pool{},
			[]string{"does not speak TLS", "port"}},
		{"nothing for https", "https://origin.test",
			newRawServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }),
			&Pool{TLSTimeout: 20 * time.Millisecond}, []string{"does not speak TLS"}},
		{"TLS for http", "http://origin.test",
			newRawServer(t, func(c net.Conn) { _, _ = io.WriteString(c, "\x15\x03\x01\x00\x02\x02\x46") }), &Pool{},
			[]string{"speaks TLS", "https://"}},
		{"certificate for another name than --host", "https://origin.test", secure,
			&Pool{Flags: true, TLS: &tls.Config{RootCAs: roots}, Host: "www.test"},
			[]string{"--host is another name", "origin.sni of a fleet file"}},
	}
}

// connectionHints are the other failures.
func connectionHints(t *testing.T) []failureHint {
	noName := func(err *net.DNSError) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) { return nil, err }
	}
	unreachable := func(context.Context, string, string) (net.Conn, error) {
		<-time.After(time.Millisecond)
		return nil, &net.OpError{Op: "dial", Err: &timeoutError{"i/o timeout"}}
	}
	bad := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	failing := httptest.NewServer(http.HandlerFunc(bad))
	t.Cleanup(failing.Close)
	return []failureHint{
		{"refused", "http://origin.test:81", strings.TrimPrefix(closedURL(t), "http://"), &Pool{},
			[]string{"nothing listens on origin.test:81", "origin.servers"}},
		{"refused, by flags", "http://origin.test:81", strings.TrimPrefix(closedURL(t), "http://"), &Pool{Flags: true},
			[]string{"the host and port in --origin"}},
		{"no such name", "http://origin.test", "",
			&Pool{Dial: noName(&net.DNSError{Err: "no such host", Name: "origin.test", IsNotFound: true})},
			[]string{"origin.test has no address", "origin.servers"}},
		{"no resolver", "http://origin.test", "",
			&Pool{Dial: noName(&net.DNSError{Err: "server misbehaving", Name: "origin.test"})}, []string{"resolver",
				"resolv.conf"}},
		{"no connection", "http://origin.test", "", &Pool{Dial: unreachable},
			[]string{"accepted no connection within 5s", "origin.connect_timeout", "firewall"}},
		{"no answer", "http://origin.test", newRawServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }),
			&Pool{FirstByteTimeout: 20 * time.Millisecond}, []string{"no answer within 20ms",
				"origin.first_byte_timeout"}},
		{"closed", "http://origin.test", newRawServer(t, func(net.Conn) {}), &Pool{},
			[]string{"closed the connection without a response"}},
		{"a server error", "http://origin.test", failing.Listener.Addr().String(), &Pool{},
			[]string{"itself sends this response"}},
	}
}

// Each kind of failure has a hint that names the right key of the fleet file.
func TestHints(t *testing.T) {
	for _, c := range slices.Concat(tlsHints(t), connectionHints(t)) {
		t.Run(c.name, func(t *testing.T) {
			p := c.pool
			p.Servers, p.Log = []Server{serverAt(t, c.server)}, discardLog
			if p.Dial == nil {
				p.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, c.at)
				}
			}
			startPool(t, p)
			began := time.Now()
			_, err := fetchBody(t, p, request(t, "GET", "/", ""))
			last := p.Status().Servers[0].LastFailure
			if last == nil || last.At.Before(began) || last.Reason == "" || last.Error == "" {
				t.Fatalf("the server's last failure is %+v", last)
			}
			for _, want := range c.want {
				if !strings.Contains(last.Hint, want) {
					t.Errorf("no %q in the hint %q, of %q", want, last.Hint, last.Error)
				}
			}
			if err != nil { // only a failed round trip has an error
				if f := FailureOf(err, began); f.Hint != last.Hint || f.Reason != last.Reason {
					t.Errorf("the request's failure is %+v, the server's %+v", f, last)
				}
			}
		})
	}
}

// The text of an error stays short and on one line, whatever the server sends.
func TestErrorTextIsBounded(t *testing.T) {
	long := "HTTP/1.1 \x1b[31m" + strings.Repeat("ü", 100_000) + "\r\n"
	p := startPool(t, &Pool{Servers: []Server{serverAt(t,
		"http://"+newRawServer(t, func(c net.Conn) { _, _ = io.WriteString(c, long) }))}, Log: discardLog})
	_, err := fetchBody(t, p, request(t, "GET", "/", ""))
	for _, text := range []string{err.Error(), FailureOf(err, time.Now()).Error,
		p.Status().Servers[0].LastFailure.Error, sanitize("a\x1b[31m\nb" + strings.Repeat("ü", 1000))} {
		if len(text) > maxErrorText+100 || strings.ContainsAny(text, "\x1b\r\n") || !utf8.ValidString(text) ||
			text == "" {
			t.Errorf("%d bytes: %.80q", len(text), text)
		}
	}
	if got := sanitize("a ü 1"); got != "a ü 1" {
		t.Errorf("a short text: %q", got)
	}
}

// The errors of a pool are described too: the queue timed out, or no server takes connections.
func TestFailureOfPool(t *testing.T) {
	if f := FailureOf(fmt.Errorf("%w: 5 requests are already queued", ErrBusy),
		time.Now()); f.Reason != "origin-busy" ||
		!strings.Contains(f.Hint, "origin.max_requests") {
		t.Errorf("busy: %+v", f)
	}
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, closedURL(t))}, Log: discardLog})
	var err error
	for range 2 * failureLimit {
		_, err = fetchBody(t, p, request(t, "GET", "/", ""))
	}
	p.mu.Lock()
	err = errors.Join(err, p.downError(nil))
	p.mu.Unlock()
	if f := FailureOf(err, time.Now()); f.Reason != "connect-failed" || !strings.Contains(f.Hint, "nothing listens") {
		t.Errorf("down: %+v", f)
	}
}
