package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// newSecure starts an edge with TLS.
func newSecure(t testing.TB, h http.HandlerFunc, secret byte, change ...func(*Server, *site.Site)) *testEdge {
	t.Helper()
	certificates := newCertificates(t, "www.example")
	return newEdge(t, h, append([]func(*Server, *site.Site){func(s *Server, _ *site.Site) {
		s.HTTPS, s.Secrets, s.Certificates = "127.0.0.1:0", [][32]byte{{secret}}, certificates
	}}, change...)...)
}

// shake makes a TLS connection to an edge.
func (e *testEdge) shake(conf *tls.Config) (tls.ConnectionState, error) {
	conn, err := (&tls.Dialer{Config: conf}).DialContext(e.t.Context(), "tcp", e.SecureAddr().String())
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil
}

func TestHandshakes(t *testing.T) {
	e := newSecure(t, static("x"), 1)
	for _, c := range []struct {
		name   string
		change func(*tls.Config)
		fails  bool
		want   func(tls.ConnectionState) bool
	}{
		{"1.3, post-quantum, h2", func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, false,
			func(st tls.ConnectionState) bool {
				return st.Version == tls.VersionTLS13 && st.CurveID == tls.X25519MLKEM768 &&
					st.NegotiatedProtocol == "h2"
			}},
		{"1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, false,
			func(st tls.ConnectionState) bool { return st.Version == tls.VersionTLS12 }},
		{"http/1.1", func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, false,
			func(st tls.ConnectionState) bool { return st.NegotiatedProtocol == "http/1.1" }},
		{"a curve of old", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }, false,
			func(st tls.ConnectionState) bool { return st.CurveID == tls.CurveP256 }},
		{"1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, true, nil},
		{"CBC", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		}, true, nil},
		{"another protocol", func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} }, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := e.trust()
			c.change(conf)
			st, err := e.shake(conf)
			if (err != nil) != c.fails {
				t.Fatalf("error %v", err)
			}
			if !c.fails && !c.want(st) {
				t.Errorf("version %x, curve %v, protocol %q", st.Version, st.CurveID, st.NegotiatedProtocol)
			}
		})
	}
}

// A client that names no host, or one that no certificate is for, gets an alert and sees no
// certificate.
func TestUnknownName(t *testing.T) {
	e := newSecure(t, static("x"), 1)
	const unrecognizedName = 112
	for _, name := range []string{"", "other.example", "example", "a.www.example"} {
		conf := &tls.Config{ServerName: name, InsecureSkipVerify: true, VerifyPeerCertificate: nil}
		conf.VerifyConnection = func(st tls.ConnectionState) error {
			t.Errorf("%q sees the certificate of %v", name, st.PeerCertificates[0].DNSNames)
			return nil
		}
		_, err := e.shake(conf)
		if err == nil || !strings.Contains(err.Error(), "remote error: tls: unrecognized name") {
			t.Errorf("%q over TCP: %v", name, err)
		}
		conf.NextProtos = []string{"h3"}
		if name == "" {
			conf.ServerName = "127.0.0.1" // which is not sent
		}
		c, err := quic.DialAddr(t.Context(), e.SecureAddr().String(), conf, nil)
		var closed *quic.TransportError
		if !errors.As(err, &closed) || closed.ErrorCode != 0x100+unrecognizedName {
			t.Errorf("%q over QUIC: %v, %v", name, c, err)
		}
	}
}

// A session goes on at another edge of the fleet, also at one that uses a new secret already, and
// not at one of another fleet.
func TestResumption(t *testing.T) {
	first, second, other := newSecure(t, static("x"), 1), newSecure(t, static("x"), 1), newSecure(t, static("x"), 2)
	rolled := newSecure(t, static("x"), 0, func(s *Server, _ *site.Site) { s.Secrets = [][32]byte{{3}, {1}} })
	pool := first.trust().RootCAs
	for _, e := range []*testEdge{second, other, rolled} {
		for _, c := range e.Certificates.Files() {
			pool.AddCert(c.Leaf)
		}
	}
	for _, c := range []struct {
		name  string
		shake func(e *testEdge, conf *tls.Config) (resumed bool)
	}{
		{"TLS 1.2", func(e *testEdge, conf *tls.Config) bool {
			conf.MaxVersion = tls.VersionTLS12
			return exchangeOver(t, e, conf)
		}},
		{"TLS 1.3", func(e *testEdge, conf *tls.Config) bool { return exchangeOver(t, e, conf) }},
		{"QUIC", func(e *testEdge, conf *tls.Config) bool {
			conf.NextProtos = []string{"h3"}
			c, err := quic.DialAddrEarly(t.Context(), e.SecureAddr().String(), conf, &quic.Config{})
			if err != nil {
				t.Fatal(err)
			}
			<-c.HandshakeComplete()
			if c.ConnectionState().Used0RTT {
				t.Error("0-RTT was used")
			}
			select {
			case <-conf.ClientSessionCache.(*toldCache).put:
			case <-t.Context().Done():
			}
			resumed := c.ConnectionState().TLS.DidResume
			return errors.Join(c.CloseWithError(0, "")) == nil && resumed
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &tls.Config{ServerName: "www.example", RootCAs: pool,
				ClientSessionCache: &toldCache{tls.NewLRUClientSessionCache(1), make(chan struct{}, 100)}}
			if c.shake(first, conf.Clone()) {
				t.Error("the first session is resumed")
			}
			if !c.shake(second, conf.Clone()) {
				t.Error("the session does not go on at the second edge")
			}
			if !c.shake(rolled, conf.Clone()) {
				t.Error("the session does not go on at an edge that uses a new secret")
			}
			if c.shake(first, conf.Clone()) {
				t.Error("a session of the new secret goes on at an edge that does not have it")
			}
			if !c.shake(second, conf.Clone()) {
				t.Error("the session of the first edge does not go on at the second")
			}
			if c.shake(other, conf.Clone()) {
				t.Error("the session goes on at an edge of another fleet")
			}
		})
	}
}

// toldCache tells when a ticket has come.
type toldCache struct {
	tls.ClientSessionCache
	put chan struct{}
}

func (c *toldCache) Put(key string, s *tls.ClientSessionState) {
	c.ClientSessionCache.Put(key, s)
	if s != nil {
		c.put <- struct{}{}
	}
}

// exchangeOver makes a connection and a request over it, so that the ticket has come.
func exchangeOver(t *testing.T, e *testEdge, conf *tls.Config) (resumed bool) {
	t.Helper()
	conn, err := (&tls.Dialer{Config: conf}).DialContext(t.Context(), "tcp", e.SecureAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn,
		"GET "+admin.HealthPath+" HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	return conn.(*tls.Conn).ConnectionState().DidResume
}

// Files are taken when they change; a pair that doesn't fit leaves what was there.
func TestCertificateFiles(t *testing.T) {
	c := &certs.Certificates{}
	old, renewed, expired := newCertificate(t, time.Now().Add(time.Hour), "www.example"), newCertificate(t,
		time.Now().Add(48*time.Hour), "www.example", "*.www.example"),
		newCertificate(t, time.Now().Add(-time.Minute), "www.example")
	if err := c.SetFiles([]certs.File{old}); err != nil {
		t.Fatal(err)
	}
	shown := func(name string) time.Time {
		cert, err := c.Get(&tls.ClientHelloInfo{ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
			CipherSuites:     []uint16{tls.TLS_AES_128_GCM_SHA256}, SupportedCurves: []tls.CurveID{tls.X25519}})
		if err != nil {
			t.Fatal(err)
		}
		if cert == nil {
			return time.Time{}
		}
		return cert.Leaf.NotAfter
	}
	before := shown("WWW.example.")
	if before.IsZero() {
		t.Fatal("no certificate")
	}
	for _, bad := range []certs.File{{Cert: old.Cert, Key: renewed.Key}, {Cert: "/nowhere", Key: old.Key},
		{Cert: old.Key, Key: old.Key}} {
		if err := c.SetFiles([]certs.File{renewed, bad}); err == nil || !strings.Contains(err.Error(), bad.Cert) {
			t.Errorf("%v: error %v", bad, err)
		}
	}
	if shown("www.example") != before {
		t.Error("a bad file changed what is shown")
	}
	for _, list := range [][]certs.File{{expired, renewed}, {renewed, expired}, {renewed, old}, {old, renewed}} {
		if err := c.SetFiles(list); err != nil {
			t.Fatal(err)
		}
		if got := shown("www.example"); got.Before(time.Now()) {
			t.Error("an expired certificate is shown though there is a good one")
		}
	}
	if shown("a.www.example").IsZero() || !shown("a.b.www.example").IsZero() || !shown("example").IsZero() {
		t.Error("a wildcard is not for what is one label below it")
	}
	if !c.Has("www.example") || c.Has("example") {
		t.Error("has is wrong")
	}
	for list, want := range map[string]bool{"www.example": true, "www.example 203.0.113.1 [::1]": true,
		"www.example example": false, "www.example *.www.example": true} {
		c.SetHosts(strings.Fields(list))
		if c.Complete() != want {
			t.Errorf("complete for %s: %v", list, !want)
		}
	}
	if err := c.SetFiles([]certs.File{expired}); err != nil {
		t.Fatal(err)
	}
	if shown("www.example").IsZero() || c.Has("www.example") {
		t.Error("one that has expired is to be shown, but does not count")
	}
	if err := os.Remove(expired.Cert); err != nil {
		t.Fatal(err)
	}
}

func TestDaysLeft(t *testing.T) {
	e := newSecure(t, static("x"), 1)
	if m := e.admin("GET", "/metrics", "").body; !strings.Contains(m,
		`kaiku_certificate_days_left{from="file",name="www.example"} 0.04`) {
		t.Error("the metrics don't tell of the certificate")
	}
}

// Plain HTTP is sent to https:// where the site wants that; HSTS is for TLS alone; HTTP/3 is told
// of over TLS; the origin's own fields of the kind don't pass.
func TestSecureSite(t *testing.T) {
	certificates := newCertificates(t, "www.example")
	e := newEdge(t, static("x", "Cache-Control: max-age=1000", "Strict-Transport-Security: max-age=7",
		`Alt-Svc: h2="origin.example:443"`), func(s *Server, site *site.Site) {
		s.HTTPS, s.Certificates = "127.0.0.1:0", certificates
		site.Redirect, site.HSTS = true, "max-age=31536000; includeSubDomains"
		s.Tokens.Set([]purge.Token{full("secret")})
	})
	_, port, _ := strings.Cut(e.SecureAddr().String(), ":")
	for _, c := range []struct {
		protocol       protocol
		method, path   string
		status         int
		location, hsts string
		altSvc         bool
	}{
		{protoHTTP1, "GET", "/a?b=%20c", 308, "https://www.example:" + port + "/a?b=%20c", "", false},
		{protoHTTP1, "POST", "/a", 308, "https://www.example:" + port + "/a", "", false},
		{protoHTTP1, "GET", admin.HealthPath, 200, "", "", false},
		{protoHTTP1, "PURGE", "/a", 403, "", "", false}, // those who purge don't follow
		{protoTLS1, "GET", "/a", 200, "", "max-age=31536000; includeSubDomains", true},
		{protoHTTP2, "GET", "/a", 200, "", "max-age=31536000; includeSubDomains", true},
		{protoHTTP3, "GET", "/a", 200, "", "max-age=31536000; includeSubDomains", false},
	} {
		r := e.request(c.method, c.path, "")
		r.URL.Scheme = c.protocol.scheme()
		resp, err := e.newClientOf(c.protocol).Do(r)
		if err != nil {
			t.Fatalf("%s %s %s: %v", c.protocol, c.method, c.path, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		h := resp.Header
		if resp.StatusCode != c.status || h.Get("Location") != c.location ||
			h.Get("Strict-Transport-Security") != c.hsts {
			t.Errorf("%s %s %s: %d to %q, HSTS %q", c.protocol, c.method, c.path, resp.StatusCode, h.Get("Location"),
				h.Get("Strict-Transport-Security"))
		}
		if want := `h3=":` + port + `"; ma=86400`; c.altSvc != (h.Get("Alt-Svc") == want) ||
			!c.altSvc && h.Get("Alt-Svc") != "" {
			t.Errorf("%s %s %s: Alt-Svc %q", c.protocol, c.method, c.path, h.Get("Alt-Svc"))
		}
	}

	// Without a certificate for the host there is nowhere to send clients to, and what the origin
	// says of HSTS is not for plain HTTP.
	if err := certificates.SetFiles(nil); err != nil {
		t.Fatal(err)
	}
	r := e.request("GET", "/a", "")
	r.URL.Scheme = "http"
	resp, err := e.newClientOf("").Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Strict-Transport-Security") != "" {
		t.Errorf("without a certificate: %d, %v", resp.StatusCode, resp.Header)
	}
}

// A site may have a wildcard: it is each name one label below that no site has itself, and is
// purged as one.
func TestWildcardHost(t *testing.T) {
	e := newEdge(t, static("x", "Cache-Control: max-age=1000"),
		func(_ *Server, site *site.Site) { site.Hosts = []string{"*.example", "own.other.example"} })
	own := &site.Site{Name: "own", Hosts: []string{"own.example"}, Origin: e.site.Origin}
	e.Sites.Set([]*site.Site{e.site, own})
	for host, status := range map[string]int{"a.example": 200, "B.Example": 200, "own.example": 200, "example": 421,
		"a.b.example": 421, "own.other.example": 200} {
		if got := e.get("/a", "Host: "+host); got.status != status {
			t.Errorf("%s: %d, want %d", host, got.status, status)
		}
	}
	if got := e.purge(`{"hosts":["*.example"]}`); got.status != 200 {
		t.Fatalf("purge: %d %s", got.status, got.body)
	}
	for host, hit := range map[string]bool{"a.example": false, "b.example": false, "own.example": true,
		"own.other.example": true} {
		if got := e.get("/a", "Host: "+host); got.isHit() != hit {
			t.Errorf("%s after the purge: hit %v", host, got.isHit())
		}
	}
}
