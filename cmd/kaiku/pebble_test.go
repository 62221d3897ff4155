package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// testCA is Let's Encrypt's test authority Pebble, in this process.
type testCA struct {
	directory string         // URL
	roots     string         // file with the authority of the directory's own certificate
	pool      *x509.CertPool // authority of the issued certificates
	root      []byte         // the same, as PEM
	handler   http.Handler   // of the ACME API
	manage    http.Handler
	orders    atomic.Int64 // number of orders
	down      atomic.Bool  // it answers everything with 503

	mu       sync.Mutex
	finalize func() // called before an order is finalized
}

// newCA starts an authority. It resolves names at a DNS server, and validates challenges at the
// given ports. It refuses a third of all nonces.
func newCA(t *testing.T, resolver string, httpPort, tlsPort int) *testCA {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "33")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	out := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	profiles := map[string]ca.Profile{"default": {Description: "as usual"},
		"shortlived": {Description: "six days", ValidityPeriod: 6 * 86400}}
	front := wfe.New(out, store, va.New(out, httpPort, tlsPort, false, resolver, store),
		ca.New(out, store, "", "ecdsa", 0, 1, profiles), []string{"pebble.example"}, false, false, 1, 1)
	c := &testCA{manage: front.ManagementHandler()}
	handler := front.Handler()
	c.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case c.down.Load():
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		case strings.HasSuffix(r.URL.Path, "/order-plz"):
			c.orders.Add(1)
		case strings.Contains(r.URL.Path, "/finalize-order/"):
			c.mu.Lock()
			f := c.finalize
			c.mu.Unlock()
			if f != nil {
				f()
			}
		case strings.Contains(r.URL.Path, "/renewalInfo/"):
			w = &impatient{w}
		}
		handler.ServeHTTP(w, r)
	})
	s := httptest.NewUnstartedServer(c.handler)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{{127, 0, 0, 1}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	c.directory, c.roots = s.URL+wfe.DirectoryPath, filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		0o600); err != nil {
		t.Fatal(err)
	}
	root := httptest.NewRecorder()
	c.manage.ServeHTTP(root, httptest.NewRequest("GET", wfe.RootCertPath+"0", nil))
	c.pool, c.root = x509.NewCertPool(), root.Body.Bytes()
	if !c.pool.AppendCertsFromPEM(c.root) {
		t.Fatal("pebble has no root")
	}
	return c
}

// impatient makes the client ask for renewal information again soon.
type impatient struct{ http.ResponseWriter }

// WriteHeader changes the header block.
func (w *impatient) WriteHeader(status int) {
	w.Header().Set("Retry-After", "0")
	w.ResponseWriter.WriteHeader(status)
}

// Write changes it too.
func (w *impatient) Write(p []byte) (int, error) {
	w.Header().Set("Retry-After", "0")
	return w.ResponseWriter.Write(p)
}

// onFinalize makes the authority call f before it finalizes an order.
func (c *testCA) onFinalize(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finalize = f
}

// wantRenewed makes the authority say that a certificate is to be renewed now.
func (c *testCA) wantRenewed(t *testing.T, cert *x509.Certificate) {
	t.Helper()
	now := time.Now()
	window, err := json.Marshal(map[string]any{"suggestedWindow": map[string]any{"start": now.Add(-2 * time.Hour),
		"end": now.Add(-time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
		Bytes: cert.Raw})), "ARIResponse": string(window)})
	if err != nil {
		t.Fatal(err)
	}
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/set-renewal-info/", bytes.NewReader(body))
	r.Header.Set("User-Agent", "kaiku-test") // the authority requires one
	c.manage.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("set the renewal information: %d %s", w.Code, w.Body)
	}
}

// shown returns the certificate that an edge has for a name, or nil if it has none from this
// authority yet.
func (c *testCA) shown(addr, name string) *x509.Certificate {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", addr,
		&tls.Config{ServerName: name, RootCAs: c.pool})
	if err != nil {
		return nil
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}
