package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// TestMain lets tests run the whole program as a process of its own, which they can kill.
func TestMain(m *testing.M) {
	if args := os.Getenv("KAIKU_TEST_ARGS"); args != "" {
		if err := run(context.Background(), strings.Split(args, "\n"), os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// secureFleet is a fleet with a control node, two name servers, two edges, and a third edge that
// starts later. Its sites are example.com and all names below it.
type secureFleet struct {
	t      *testing.T
	ca     *testCA
	config string
	https  map[string]string // addresses of edges
	http   map[string]string
	dns    map[string]string // of name servers
	stop   func()            // ends the control node
}

func newSecureFleet(t *testing.T, acme string) *secureFleet {
	t.Helper()
	o := newCountingOrigin(t)
	dir := t.TempDir()
	f := &secureFleet{t: t, config: filepath.Join(dir, "fleet.yaml"), https: map[string]string{},
		http: map[string]string{},
		dns:  map[string]string{"ns1": freeport.Addr(t), "ns2": freeport.Addr(t)}}
	f.ca = newCA(t, f.dns["ns1"], 1, 1) // it can only query name servers
	text := fmt.Sprintf(`
sites: [{ name: www, hosts: [example.com, "*.example.com"], origin: { servers: ["%s"] } }]
edge: { disk: 128MiB, memory: 16MiB }
secrets: { fleet_key: fleet.key }
tls: { acme: { email: ops@example.com, directory: "%s", ca: "%s" %s } }
geodns:
  zones: [{ name: example.com, file: example.com.zone, edges: { "@": {} } }]
nodes:
  c1: { roles: [control], addresses: [127.0.0.9], control: { listen: %q, data: %q } }
  ns1: { roles: [geodns] }
  ns2: { roles: [geodns] }
`, o.URL, f.ca.directory, f.ca.roots, acme, freeport.Addr(t), filepath.Join(dir, "c1"))
	for i, name := range []string{"hel1", "nyc1", "sin1"} {
		f.http[name], f.https[name] = freeport.Addr(t), freeport.Addr(t)
		text += fmt.Sprintf("  %s: { roles: [edge], location: [0, 0], addresses: [127.0.0.%d], edge: { http: %q, https: %q, admin: %q, peer: %q, data: %q } }\n",
			name, i+1, f.http[name], f.https[name], freeport.Addr(t), freeport.Addr(t), filepath.Join(dir, name))
	}
	zone := "@ 3600 IN SOA ns1 hostmaster 1 3600 600 86400 60\n@ 3600 IN NS ns1\n@ 3600 IN NS ns2\nns1 3600 IN A 127.0.0.1\nns2 3600 IN A 127.0.0.1\n"
	writeFiles(t, dir, map[string]string{"fleet.yaml": text, "fleet.key": regionKey, "example.com.zone": zone})
	f.stop = runNode(t, f.config, "c1")
	return f
}

// run runs a node until the test ends. Edges check for renewals twice a second.
func (f *secureFleet) run(name string) (stop func()) {
	f.t.Helper()
	log := slog.New(slog.NewTextHandler(f.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", name)
	p := newNode(f.t, f.config, name, node.Overrides{Listen: listenOn(f.dns[name])}, log)
	if p.Edge != nil {
		p.Edge.Certificates.ACME.Every = 500 * time.Millisecond
	}
	return serveNode(f.t, name, p)
}

// serves waits until an edge has certificates for the apex and for a name below it. It returns the
// certificate of the apex.
func (f *secureFleet) serves(edge string) *x509.Certificate {
	f.t.Helper()
	var apex *x509.Certificate
	testwait.Until(f.t, edge+" has certificates", func() bool {
		apex = f.ca.shown(f.https[edge], "example.com")
		return apex != nil && f.ca.shown(f.https[edge], "deep.example.com") != nil
	})
	return apex
}

// With only an e-mail address, a fleet gets a wildcard and an apex certificate on all edges. It
// orders each once, and renews them when the authority says so. An edge that starts later has them
// at once, even if the authority is down.
func TestFleetGetsCertificates(t *testing.T) {
	f := newSecureFleet(t, "")
	for _, name := range []string{"ns1", "ns2", "hel1", "nyc1"} {
		f.run(name)
	}
	first := f.serves("hel1")
	if other := f.serves("nyc1"); !other.Equal(first) {
		t.Error("the edges have different certificates")
	}
	if n := f.ca.orders.Load(); n < 2 || n > 8 { // the authority refuses the nonces of some
		t.Errorf("%d orders for two certificates", n)
	}
	if f.ca.shown(f.https["hel1"], "a.b.example.com") != nil {
		t.Error("a certificate is shown for a name that it is not for")
	}

	f.ca.wantRenewed(t, first)
	for _, edge := range []string{"hel1", "nyc1"} {
		testwait.Until(t, edge+" has the renewed certificate", func() bool {
			now := f.ca.shown(f.https[edge], "example.com")
			return now != nil && !now.Equal(first)
		})
	}

	f.ca.down.Store(true)
	stop := f.run("sin1")
	f.serves("sin1")

	// Without the authority and the control plane, an edge that restarts has its copies.
	stop()
	f.stop()
	f.run("sin1")
	f.serves("sin1")
}

// If an edge dies in the middle of its order, another one completes it.
func TestOrderGoesOnWithoutLeader(t *testing.T) {
	f := newSecureFleet(t, "")
	f.run("ns1")
	f.run("ns2")
	ordering, killed := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(ordering) })
	f.ca.onFinalize(func() {
		once()
		<-killed
	})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	leader := exec.CommandContext(t.Context(), exe)
	leader.Env = append(os.Environ(),
		"KAIKU_TEST_ARGS="+strings.Join([]string{"edge", "--config", f.config, "--node", "hel1"}, "\n"))
	leader.Stdout, leader.Stderr = t.Output(), t.Output()
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ordering:
	case <-time.After(60 * time.Second):
		t.Error("the first edge orders nothing")
	}
	if err := leader.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = leader.Wait()
	close(killed)
	f.run("nyc1")
	f.serves("nyc1")
}

// A single node answers HTTP-01 or TLS-ALPN-01 challenges. After a restart it has its certificates
// without a new order.
func TestSingleNodeGetsCertificates(t *testing.T) {
	o := newCountingOrigin(t)
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			dir := t.TempDir()
			plain, secure := freeport.Addr(t), freeport.Addr(t)
			ports := map[string]int{"http-01": 1, "tls-alpn-01": 1} // nothing listens there
			_, port, err := net.SplitHostPort(map[string]string{"http-01": plain, "tls-alpn-01": secure}[challenge])
			if err != nil {
				t.Fatal(err)
			}
			if ports[challenge], err = strconv.Atoi(port); err != nil {
				t.Fatal(err)
			}
			ca := newCA(t, localhostDNS(t), ports["http-01"], ports["tls-alpn-01"])
			config := filepath.Join(dir, "fleet.yaml")
			text := fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["%s"] }, https: { redirect: true, hsts: { max_age: 1h } } }]
tls: { acme: { email: ops@example.com, directory: "%s", ca: "%s", profile: shortlived } }
nodes:
  hel1: { roles: [edge], location: [0, 0], addresses: [127.0.0.1], edge: { disk: 128MiB, memory: 16MiB, http: %q, https: %q, admin: %q, data: %q } }
`, o.URL, ca.directory, ca.roots, plain, secure, freeport.Addr(t), filepath.Join(dir, "data"))
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var cert *x509.Certificate
			stop := runNode(t, config, "hel1")
			testwait.Until(t, "the edge has a certificate",
				func() bool { cert = ca.shown(secure, "www.example.com"); return cert != nil })
			if life := cert.NotAfter.Sub(cert.NotBefore); life > 7*24*time.Hour {
				t.Errorf("the certificate is good for %v: not by the profile that was asked for", life)
			}
			stop()
			orders := ca.orders.Load()
			ca.down.Store(true)
			runNode(t, config, "hel1")
			testwait.Until(t, "the edge has its certificate again",
				func() bool { return ca.shown(secure, "www.example.com") != nil })
			if n := ca.orders.Load(); n != orders {
				t.Errorf("%d more orders after a restart", n-orders)
			}
			client := &http.Client{CheckRedirect: func(*http.Request,
				[]*http.Request) error {
				return http.ErrUseLastResponse
			}}
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+plain+"/a?b", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "www.example.com"
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if want := "https://www.example.com:" + secure[strings.LastIndexByte(secure, ':')+1:] +
				"/a?b"; resp.StatusCode != 308 || resp.Header.Get("Location") != want {
				t.Errorf("plain HTTP is answered %d to %q, want 308 to %q", resp.StatusCode,
					resp.Header.Get("Location"), want)
			}
		})
	}
}

// localhostDNS returns the address of a name server where www.example.com is this machine.
func localhostDNS(t *testing.T) string {
	t.Helper()
	zone, errs := geodns.ParseZone(strings.NewReader("@ 60 IN SOA ns1 hostmaster 1 3600 600 86400 60\n@ 60 IN NS ns1\nns1 60 IN A 127.0.0.1\nwww 60 IN A 127.0.0.1\n"), "example.com", "zone")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	s := &geodns.Server{Addr: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}
	if err := s.Reload(geodns.Config{Zones: []*geodns.Zone{zone}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.LocalAddr().String()
}
