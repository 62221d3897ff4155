package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// testEdge is an edge on loopback in front of one origin, with a client that reaches it under any
// name.
type testEdge struct {
	*Server
	t        testing.TB
	protocol protocol
	site     *site.Site
	client   *http.Client
	hits     atomic.Int64 // requests that reached the origin
	stop     func()       // ends Serve and closes the store; once
}

// newEdge starts an edge with a client of HTTP/1.1 without TLS.
func newEdge(t testing.TB, h http.HandlerFunc, change ...func(*Server, *site.Site)) *testEdge {
	t.Helper()
	return protoHTTP1.newEdge(t, h, change...)
}

// start starts the edge on the store in dir.
func (e *testEdge) start(originURL, dir string, change ...func(*Server, *site.Site)) {
	e.t.Helper()
	log := slog.New(slog.NewTextHandler(e.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	u, err := url.Parse(originURL)
	if err != nil {
		e.t.Fatal(err)
	}
	e.Server = &Server{Name: "hel1", HTTP: "127.0.0.1:0", Admin: "127.0.0.1:0", Log: log,
		OwnHTTP2: e.protocol != protoHTTP2Go}
	e.site = &site.Site{Name: "www", Hosts: []string{"www.example"},
		Origin: &origin.Route{Origin: &origin.Pool{Servers: []origin.Server{{URL: u}}, Log: log}}}
	if e.protocol.secure() {
		e.HTTPS, e.Certificates = "127.0.0.1:0", newCertificates(e.t, "www.example")
	}
	for _, c := range change {
		c(e.Server, e.site)
	}
	shared := e.Store != nil
	if !shared {
		if e.Store, err = storage.Open(storage.Options{Dir: dir, Disk: 256 << 20, Memory: 16 << 20, Floor: 1,
			Log: log}); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := e.site.Origin.Origin.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.Sites.Set([]*site.Site{e.site})
	if err := e.Listen(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	e.client = e.newClient()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx) }()
	e.stop = sync.OnceFunc(func() {
		if e.protocol != protoHTTP3 { // its transport takes a connection as idle whose bodies are still read
			e.client.CloseIdleConnections()
		}
		cancel()
		if err := <-served; err != nil {
			e.t.Errorf("serve: %v", err)
		}
		e.site.Origin.Origin.Close()
		if shared {
			return
		}
		if err := e.Store.Close(); err != nil {
			e.t.Errorf("close the store: %v", err)
		}
	})
	e.t.Cleanup(func() { e.stop() })
}

// trust is what a client trusts: the certificate of www.example, in files of the test.
func (e *testEdge) trust() *tls.Config {
	pool := x509.NewCertPool()
	for _, c := range e.Certificates.Files() {
		pool.AddCert(c.Leaf)
	}
	return &tls.Config{ServerName: "www.example", RootCAs: pool}
}

// newCertificates makes a certificate that is its own authority, in files.
func newCertificates(t testing.TB, names ...string) *certs.Certificates {
	t.Helper()
	c := &certs.Certificates{}
	if err := c.SetFiles([]certs.File{newCertificate(t, time.Now().Add(time.Hour), names...)}); err != nil {
		t.Fatal(err)
	}
	return c
}

// newCertificate makes a certificate of some names that is good until then, with its key, in files.
func newCertificate(t testing.TB, until time.Time, names ...string) certs.File {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: serial, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign},
		&x509.Certificate{SerialNumber: serial}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := certs.File{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	for name, block := range map[string]*pem.Block{f.Cert: {Type: "CERTIFICATE", Bytes: der},
		f.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// answer is a response with its body.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

// request makes a request for a path of www.example; fields are "Name: value" lines.
func (e *testEdge) request(method, path, body string, fields ...string) *http.Request {
	e.t.Helper()
	r, err := http.NewRequestWithContext(e.t.Context(), method, e.url(""), strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	if body == "" {
		r.Body = http.NoBody
	}
	r.URL.Opaque = path // its bytes as they are
	if strings.HasPrefix(path, "//") {
		r.URL.Opaque, r.URL.Path = "", path
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		if name == "Host" {
			r.Host = strings.TrimSpace(value)
			continue
		}
		r.Header.Add(name, strings.TrimSpace(value))
	}
	return r
}

// url returns the URL of a path of www.example.
func (e *testEdge) url(path string) string { return e.protocol.scheme() + "://www.example" + path }

// do makes a request and reads the answer whole. It may be called from any goroutine.
func (e *testEdge) do(r *http.Request) answer {
	e.t.Helper()
	resp, err := e.client.Do(r)
	if err != nil {
		e.t.Errorf("%s %s: %v", r.Method, r.URL, err)
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

// doCut is do for a response that the edge cuts short. With HTTP/3 the stream may be reset before
// the client looks at its header block.
func (e *testEdge) doCut(r *http.Request) answer {
	resp, err := e.client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

// get makes a request and waits until what it began is over: a client has the whole body a moment
// before it is stored.
func (e *testEdge) get(path string, fields ...string) answer {
	e.t.Helper()
	a := e.do(e.request(http.MethodGet, path, "", fields...))
	e.settle()
	return a
}

// settle waits until no flight is under way.
func (e *testEdge) settle() {
	e.t.Helper()
	testwait.Until(e.t, "all flights have landed", func() bool {
		return e.cache.UnderWay().Flights == 0
	})
}

// wants fails the test unless the answer has this status and body.
func (a answer) wants(t *testing.T, status int, body string) {
	t.Helper()
	if a.err != nil || a.status != status || a.body != body {
		t.Fatalf("got %d, %.60q, error %v, want %d, %.60q", a.status, a.body, a.err, status, body)
	}
}

// cacheStatus returns the parameters of this edge's member of Cache-Status: what has no value is
// "true".
func (a answer) cacheStatus() map[string]string {
	lines := a.header["Cache-Status"]
	if len(lines) == 0 {
		return nil
	}
	parts := strings.Split(lines[len(lines)-1], "; ")
	params := map[string]string{"": parts[0]}
	for _, p := range parts[1:] {
		name, value, ok := strings.Cut(p, "=")
		if !ok {
			value = "true"
		}
		params[name] = value
	}
	return params
}

// isHit reports whether the answer came from the store alone.
func (a answer) isHit() bool { return a.cacheStatus()["hit"] == "true" }

func (a answer) number(t *testing.T, field string) int {
	t.Helper()
	n, err := strconv.Atoi(a.header.Get(field))
	if err != nil {
		t.Errorf("%s: %v", field, err)
	}
	return n
}

// wantHits fails the test unless the origin was asked so often.
func (e *testEdge) wantHits(n int64) {
	e.t.Helper()
	if got := e.hits.Load(); got != n {
		e.t.Errorf("the origin was asked %d times, want %d", got, n)
	}
}

// followers counts the requests that follow flights.
func (e *testEdge) followers() int {
	return e.cache.UnderWay().Followers
}

// static answers everything alike.
func static(body string, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		setFields(w.Header(), fields)
		_, _ = io.WriteString(w, body)
	}
}

func setFields(h http.Header, fields []string) {
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		h.Add(name, strings.TrimSpace(value))
	}
}
