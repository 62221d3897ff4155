package geodns

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// healthOn answers health probes at the given addresses of this machine, all on one port. It
// returns the port.
func healthOn(t *testing.T, hosts ...string) (port string) {
	t.Helper()
	for tries := 0; ; tries++ {
		var opened []net.Listener
		port = "0"
		for _, host := range hosts {
			l, err := net.Listen("tcp", net.JoinHostPort(host, port))
			if err != nil && port == "0" {
				t.Fatal(err)
			}
			if err != nil {
				break // another program has the port at this address
			}
			_, port, _ = net.SplitHostPort(l.Addr().String())
			opened = append(opened, l)
		}
		if len(opened) < len(hosts) && tries < 20 {
			for _, l := range opened {
				l.Close()
			}
			continue
		}
		for _, l := range opened {
			server := &httptest.Server{Listener: l,
				Config: &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}}
			server.Start()
			t.Cleanup(server.Close)
		}
		return port
	}
}

// addressFleet returns a configuration with a near node that is probed and a far node that isn't.
func addressFleet(t *testing.T, port string, near, far []string) Config {
	cfg := testConfig(t)
	cfg.Nodes = []Node{
		{Name: "hel1", Place: helsinki, Addresses: addrs(near...), Probe: "http://" + net.JoinHostPort(near[0], port) +
			"/", ALPN: []string{"h2"}},
		{Name: "nyc1", Place: newYork, Addresses: addrs(far...), ALPN: []string{"h2"}},
	}
	cfg.Edges = []EdgeName{{Name: "www.example.com"}}
	cfg.Locate = map[netip.Prefix]Place{netip.MustParsePrefix("127.0.0.0/8"): helsinki}
	cfg.Health = Health{Interval: 20 * time.Millisecond, Timeout: 10 * time.Second}
	return cfg
}

// answersOf returns the addresses of www.example.com and the hints of its HTTPS record, in one
// line.
func answersOf(t *testing.T, s *Server) string {
	t.Helper()
	var out []string
	for _, q := range []string{"A", "AAAA", "HTTPS"} {
		for _, rr := range exchange(t, "udp", s.LocalAddr().String(), "www.example.com. "+q).Answer {
			switch rr := rr.(type) {
			case *dns.A:
				out = append(out, rr.A.String())
			case *dns.AAAA:
				out = append(out, rr.AAAA.String())
			case *dns.HTTPS:
				for _, v := range rr.Value {
					if v.Key() != dns.SVCB_ALPN {
						out = append(out, v.Key().String()+"="+v.String())
					}
				}
			}
		}
	}
	return strings.Join(out, " ")
}

// Each address is probed. Answers leave out a dead address as long as another address of its node
// is alive.
func TestDeadAddressIsNotAnswered(t *testing.T) {
	far := []string{"198.51.100.20", "2001:db8:2::20"}
	for _, test := range []struct {
		name  string
		up    []string
		near  []string
		want  string
		alive bool
	}{
		{"both are well", []string{"127.0.0.1", "::1"}, []string{"127.0.0.1", "::1"},
			"127.0.0.1 ::1 ipv4hint=127.0.0.1 ipv6hint=::1", true},
		{"IPv6 is dead", []string{"127.0.0.1"}, []string{"127.0.0.1", "::1"}, "127.0.0.1 ipv4hint=127.0.0.1", true},
		{"IPv6 is dead, and the first", []string{"127.0.0.1"}, []string{"::1", "127.0.0.1"},
			"127.0.0.1 ipv4hint=127.0.0.1", true},
		{"IPv4 is dead", []string{"::1"}, []string{"127.0.0.1", "::1"}, "198.51.100.20 ::1 ipv6hint=::1", true},
		{"one of two is dead", []string{"127.0.0.1"}, []string{"127.0.0.1", "127.0.0.2", "::1"},
			"127.0.0.1 ipv4hint=127.0.0.1", true},
		{"the other of two is dead", []string{"127.0.0.2", "::1"}, []string{"127.0.0.1", "127.0.0.2", "::1"},
			"127.0.0.2 ::1 ipv4hint=127.0.0.2 ipv6hint=::1", true},
		{"all are dead", []string{"127.0.0.3"}, []string{"127.0.0.1", "::1"},
			"198.51.100.20 2001:db8:2::20 ipv4hint=198.51.100.20 ipv6hint=2001:db8:2::20", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := new(Server)
			serve(t, s, addressFleet(t, healthOn(t, test.up...), test.near, far))
			if got := answersOf(t, s); got != test.want {
				t.Errorf("answers are %s, want %s", got, test.want)
			}
			if got := s.Healthy()["hel1"]; got != test.alive {
				t.Errorf("the node is healthy: %v", got)
			}
		})
	}
}

// If there is only one node, answers leave out a dead address family. If all addresses are dead,
// answers have all of them, because they may be up.
func TestDeadAddressOfTheOnlyNode(t *testing.T) {
	for up, want := range map[string]string{
		"127.0.0.1": "127.0.0.1 ipv4hint=127.0.0.1",
		"127.0.0.3": "127.0.0.1 ::1 ipv4hint=127.0.0.1 ipv6hint=::1",
	} {
		cfg := addressFleet(t, healthOn(t, up), []string{"127.0.0.1", "::1"}, []string{"192.0.2.1"})
		cfg.Nodes = cfg.Nodes[:1]
		s := new(Server)
		serve(t, s, cfg)
		if got := answersOf(t, s); got != want {
			t.Errorf("up at %s: answers are %s, want %s", up, got, want)
		}
	}
}

// An address that comes back is in answers again.
func TestDeadAddressComesBack(t *testing.T) {
	log := &watch{wrote: make(chan struct{}, 1)}
	s := &Server{Log: slog.New(slog.NewTextHandler(log, nil))}
	port := healthOn(t, "127.0.0.1", "::1")
	four, six := healthOn(t, "127.0.0.1"), port
	cfg := addressFleet(t, four, []string{"127.0.0.1", "::1"}, []string{"192.0.2.1"})
	cfg.Nodes = cfg.Nodes[:1]
	serve(t, s, cfg)
	if got, want := answersOf(t, s), "127.0.0.1 ipv4hint=127.0.0.1"; got != want {
		t.Fatalf("answers are %s, want %s", got, want)
	}
	next := addressFleet(t, six, []string{"127.0.0.1", "::1"}, []string{"192.0.2.1"})
	next.Nodes = next.Nodes[:1]
	if err := s.Reload(next); err != nil {
		t.Fatal(err)
	}
	want := "127.0.0.1 ::1 ipv4hint=127.0.0.1 ipv6hint=::1"
	for begin := time.Now(); answersOf(t, s) != want; time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("answers are %s, want %s", answersOf(t, s), want)
		}
	}
}

// A machine without IPv6 knows nothing about IPv6 addresses, so they follow the other addresses of
// their node. The test runs itself in a network namespace that has only a loopback interface.
func TestFamilyWithoutRouteSaysNothing(t *testing.T) {
	const inside = "KAIKU_TEST_NO_ROUTE"
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFamilyWithoutRouteSaysNothing$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		if !aloneOnLoopback(cmd) {
			t.Skip("network namespaces are Linux's")
		}
		out, err := cmd.CombinedOutput()
		if cmd.Process == nil {
			t.Skipf("no network namespace here: %v", err)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := loopbackUp(); err != nil {
		t.Fatal(err)
	}
	const six = "2001:db8:1::10"
	for _, near := range [][]string{{"127.0.0.1", six}, {six, "127.0.0.1"}} {
		for up, want := range map[string]string{
			"127.0.0.1": "127.0.0.1 " + six + " ipv4hint=127.0.0.1 ipv6hint=" + six,
			"127.0.0.3": "198.51.100.20", // IPv4 is dead, so the node is dead
		} {
			s := new(Server)
			cfg := addressFleet(t, healthOn(t, up), near, []string{"198.51.100.20"})
			serve(t, s, cfg)
			if got, _, _ := strings.Cut(answersOf(t, s), " ipv4hint=198"); got != want {
				t.Errorf("%v, up at %s: answers are %s, want %s", near, up, got, want)
			}
		}
	}
	// If a node has only addresses without a route, nothing is known about it. Answers treat it
	// like a node without probes.
	s := new(Server)
	serve(t, s, addressFleet(t, "80", []string{six}, []string{"198.51.100.20", "2001:db8:2::20"}))
	if got := answersOf(t, s); !strings.Contains(got, six) || !s.Healthy()["hel1"] {
		t.Errorf("a node of which nothing is known is down: answers are %s", got)
	}
}
