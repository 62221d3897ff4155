package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// writeCertificates writes a certificate authority to ca.pem in a folder, and certificates from it
// to NAME.pem and NAME.key.
func writeCertificates(t *testing.T, dir string, names ...string) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}),
			0o644); err != nil {
			t.Fatal(err)
		}
	}
	caKey := key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	write("ca.pem", "CERTIFICATE", der)
	for i, name := range names {
		k := key()
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name},
			DNSNames: []string{name}, NotBefore: ca.NotBefore,
			NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth,
				x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, k.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".pem", "CERTIFICATE", der)
		der, err = x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".key", "PRIVATE KEY", der)
	}
}

// secureOrigin starts an https origin with the certificate NAME.pem, which is valid for one name
// only. It answers with what it received. secureOrigin returns its URL with the host localhost.
func secureOrigin(t *testing.T, dir, name string) string {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "host=%s sni=%s asked=%s", r.Host, r.TLS.ServerName, r.Header.Get("X-Forwarded-Host"))
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return "https://localhost:" + port
}

// listens waits until something listens on an address.
func listens(t *testing.T, addr string) {
	t.Helper()
	testwait.Until(t, "something listens on "+addr, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// getFrom requests a page of a host from the edge at an address.
func getFrom(t *testing.T, addr, host, path string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// An https origin whose certificate is valid only for its own name works by default. host and sni
// change what it receives.
func TestSecureOriginByName(t *testing.T) {
	dir := t.TempDir()
	writeCertificates(t, dir, "localhost", "other.test")
	own, other := secureOrigin(t, dir, "localhost"), secureOrigin(t, dir, "other.test")
	web, admin := freeport.Addr(t), freeport.Addr(t)
	config := filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
sites:
  - { name: default, hosts: [default.example], origin: { servers: [%[1]q], ca: ca.pem } }
  - { name: client, hosts: [client.example], origin: { servers: [%[1]q], ca: ca.pem, host: client } }
  - { name: host, hosts: [host.example], origin: { servers: [%[2]q], ca: ca.pem, host: other.test } }
  - { name: sni, hosts: [sni.example], origin: { servers: [%[2]q], ca: ca.pem, sni: other.test } }
  - { name: both, hosts: [both.example], origin: { servers: [%[2]q], ca: ca.pem, host: shop.example, sni: other.test } }
  - { name: wrong, hosts: [wrong.example], origin: { servers: [%[1]q], ca: ca.pem, host: wrong.example } }
nodes: { n1: { roles: [edge], location: [60, 25], addresses: [127.0.0.1] } }
edge: { http: %[3]q, admin: %[4]q, data: %[5]q, disk: 128MiB, memory: 16MiB }
`, own, other, web, admin, filepath.Join(dir, "data")), 0o600); err != nil {
		t.Fatal(err)
	}
	runNode(t, config, "n1")
	listens(t, web)
	ownName, otherName := strings.TrimPrefix(own, "https://"), strings.TrimPrefix(other, "https://")
	for _, c := range []struct{ site, host, sni string }{
		{"default", ownName, "localhost"},
		{"client", "client.example", "localhost"},
		{"host", "other.test", "other.test"},
		{"sni", otherName, "other.test"},
		{"both", "shop.example", "other.test"},
	} {
		want := fmt.Sprintf("host=%s sni=%s asked=%s.example", c.host, c.sni, c.site)
		if status, body := getFrom(t, web, c.site+".example", "/"); status != 200 || body != want {
			t.Errorf("site %s: %d, %q, want %q", c.site, status, body, want)
		}
	}
	if status, _ := getFrom(t, web, "wrong.example", "/"); status != http.StatusBadGateway {
		t.Errorf("a certificate for another name than origin.host: %d", status)
	}
	out, err := command(t, "explain", "http", "http://wrong.example/", "--admin", admin)
	for _, want := range []string{"not stored  the last fetch from the origin failed", "last fetch  failed",
		"the certificate of " + own + " is for localhost, not for wrong.example", "set origin.sni"} {
		if err != nil || !strings.Contains(out, want) || strings.Contains(out, "not requested") {
			t.Errorf("no %q in what is explained, error %v:\n%s", want, err, out)
		}
	}
}

// The edges of a region and the shield pass on the client's host to each other. The origin gets its
// own name.
func TestRegionOfSecureOrigin(t *testing.T) {
	dir := t.TempDir()
	writeCertificates(t, dir, "localhost")
	own := secureOrigin(t, dir, "localhost")
	nodes := startRegion(t, own, ", ca: ", filepath.Join(dir, "ca.pem"))
	for _, name := range []string{"eu1", "eu2", "eu3", "us1"} {
		for path := range strings.FieldsSeq("/a /b /c /d") {
			want := fmt.Sprintf("host=%s sni=localhost asked=www.example.com", strings.TrimPrefix(own, "https://"))
			if status, body := getFrom(t, nodes[name].http, "www.example.com", path); status != 200 || body != want {
				t.Errorf("%s of %s: %d, %q, want %q", path, name, status, body, want)
			}
		}
	}
}

// The same with flags only, in a process whose system trusts the origin's authority.
func TestEdgeOfSecureOrigin(t *testing.T) {
	dir := t.TempDir()
	writeCertificates(t, dir, "localhost")
	own := secureOrigin(t, dir, "localhost")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags []string
		host  string
	}{{nil, strings.TrimPrefix(own, "https://")}, {[]string{"--host", "client"}, "visitor.example"}} {
		web := freeport.Addr(t)
		args := append([]string{"edge", "--origin", own, "--listen", web, "--admin", freeport.Addr(t), "--data",
			t.TempDir(), "--disk", "128MiB"}, c.flags...)
		edge := exec.CommandContext(t.Context(), exe)
		edge.Env = append(os.Environ(), "KAIKU_TEST_ARGS="+strings.Join(args, "\n"),
			"SSL_CERT_FILE="+filepath.Join(dir, "ca.pem"))
		edge.Stdout, edge.Stderr = t.Output(), t.Output()
		if err := edge.Start(); err != nil {
			t.Fatal(err)
		}
		listens(t, web)
		want := fmt.Sprintf("host=%s sni=localhost asked=visitor.example", c.host)
		status, body := getFrom(t, web, "visitor.example", "/")
		_ = edge.Process.Kill()
		_ = edge.Wait()
		if status != 200 || body != want {
			t.Errorf("%v: %d, %q, want %q", c.flags, status, body, want)
		}
	}
}

// A site has one server without health checks, which is down. Status and metrics show that, and
// they show that it is up again after its first response.
func TestDeadOriginLooksDead(t *testing.T) {
	dir := t.TempDir()
	web, admin, addr := freeport.Addr(t), freeport.Addr(t), freeport.Addr(t)
	config := filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
sites: [{ name: www, hosts: [www.example], origin: { servers: ["http://%s"] } }]
nodes: { n1: { roles: [edge], location: [60, 25], addresses: [127.0.0.1] } }
edge: { http: %q, admin: %q, data: %q, disk: 128MiB, memory: 16MiB }
`, addr, web, admin, filepath.Join(dir, "data")), 0o600); err != nil {
		t.Fatal(err)
	}
	runNode(t, config, "n1")
	listens(t, web)
	want := func(status int, up, state string) {
		t.Helper()
		for i := range 5 {
			if got, _ := getFrom(t, web, "www.example", fmt.Sprintf("/%d", i)); got != status {
				t.Errorf("request %d: %d", i, got)
			}
		}
		if _, metrics := getFrom(t, admin, "", "/metrics"); !strings.Contains(metrics,
			`kaiku_origin_up{server="http://`+addr+`",site="www"} `+up+"\n") {
			t.Errorf("kaiku_origin_up is not %s", up)
		}
		if out, err := command(t, "status", "--admin", admin); err != nil || !strings.Contains(out, state) ||
			strings.Contains(out, "nothing listens on "+addr) == (up == "1") {
			t.Errorf("want %q in status, error %v:\n%s", state, err, out)
		}
	}
	want(502, "0", "failing")
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	o := &httptest.Server{Listener: l,
		Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60") // so that the client sees the end after the edge
			_, _ = io.WriteString(w, "hello")
		})}}
	o.Start()
	defer o.Close()
	want(200, "1", " up ")
}
