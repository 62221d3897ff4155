package geodns

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// workerConfig returns testConfig with several nodes at one place, with ALPN, and with networks
// that are smaller than the client networks of a memo.
func workerConfig(t testing.TB) Config {
	cfg := testConfig(t)
	cfg.RateLimit.Responses = -1
	cfg.Nodes[0].ALPN, cfg.Nodes[1].ALPN = []string{"h3", "h2"}, []string{"h2", "http/1.1"}
	cfg.Nodes = append(cfg.Nodes,
		Node{Name: "hel2", Place: helsinki, Addresses: addrs("203.0.113.11", "2001:db8:1::11"), ALPN: []string{"h2"}},
		Node{Name: "hel3", Place: helsinki, Addresses: addrs("203.0.113.12"), Weight: 3})
	cfg.Edges = append(cfg.Edges, EdgeName{Name: "all.example.com"}, EdgeName{Name: "all2.example.com", Answers: 2},
		EdgeName{Name: "many.example.com", Answers: 4})
	cfg.Locate[netip.MustParsePrefix("10.20.30.128/25")] = tokyo
	cfg.Locate[netip.MustParsePrefix("10.20.30.7/32")] = helsinki
	cfg.Locate[netip.MustParsePrefix("fd00:0:0:1::/64")] = tokyo
	cfg.Locate[netip.MustParsePrefix("fd00:0:0:1::7/128")] = helsinki
	return cfg
}

// packet packs a query with a client subnet. If subnet is "", the query has no OPT record.
func packet(t testing.TB, q, subnet string) []byte {
	t.Helper()
	m := question(q)
	if subnet != "" {
		prefix := netip.MustParsePrefix(subnet)
		family := uint16(1)
		if prefix.Addr().Is6() {
			family = 2
		}
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family,
			SourceNetmask: uint8(prefix.Bits()), Address: prefix.Masked().Addr().AsSlice()})
	}
	req, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return req
}

var (
	workerSubnets = []string{"", "0.0.0.0/0", "10.20.30.0/24", "10.20.30.128/25", "10.20.30.7/32", "10.20.30.8/32",
		"10.1.0.0/16", "10.0.0.0/7",
		"193.166.3.0/24", "8.8.8.0/24", "::/0", "fd00::/48", "fd00:0:0:1::/64", "fd00:0:0:1::7/128",
		"fd00:0:0:1::8/128", "2001:708::/56"}
	workerQuestions = []string{"www.example.com. A", "wWw.example.com. AAAA", "all.example.com. A",
		"all.example.com. AAAA", "all.example.com. HTTPS",
		"all2.example.com. A", "all2.example.com. HTTPS", "many.example.com. A", "example.com. HTTPS",
		"x.wild.example.com. A", "toedge.example.com. A",
		"mail.example.com. A", "sub.example.com. A", "host.old.example.com. A", "none.example.com. A",
		"example.com. MX", "example.com. ANY", "x.y.z. AXFR CH"}
)

// change changes the server's state in one of the ways that exist: a report, the phase of an
// endpoint, or the configuration. how selects the way and the node.
func change(t testing.TB, s *Server, cfg *Config, how byte) {
	states := s.current.Load().states
	switch name := cfg.Nodes[int(how>>2)%len(cfg.Nodes)].Name; how & 3 {
	case 1:
		state := states[name]
		r := Report{Draining: state.report.Load() == nil || !state.report.Load().Draining, Load: 1}
		s.Registry = func() map[string]Report { return map[string]Report{name: r} }
		s.pollRegistry(30 * time.Second)
	case 2:
		endpoints := states[name].endpoints
		e := endpoints[int(how>>5)%len(endpoints)]
		before := e.phase.Load()
		to := unhealthy
		if before != healthy {
			to = healthy
		}
		e.phase.Store(to)
		s.handleProbe(e, before != to, time.Millisecond, nil)
	case 3:
		cfg.Edges[0].Nodes = []string{cfg.Edges[0].Nodes[1], cfg.Edges[0].Nodes[0]}
		cfg.Nodes[0].Weight++
		next := *cfg
		next.Edges, next.Nodes = append([]EdgeName(nil), cfg.Edges...), append([]Node(nil), cfg.Nodes...)
		if err := s.Reload(next); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzSamePath sends each packet to a worker with a memo, and to a new worker without one, while
// the states of nodes change. Their answers must be the same.
func FuzzSamePath(f *testing.F) {
	cfg := workerConfig(f)
	for i := range cfg.Nodes {
		// Without Serve, nothing probes this URL.
		cfg.Nodes[i].Probe = "http://" + cfg.Nodes[i].Addresses[0].String() + "/"
	}
	s := newServer(f, cfg)
	s.Log = slog.New(slog.DiscardHandler)
	worker := newWorker(s)
	buf := make([]byte, dns.MaxMsgSize)
	for i, q := range workerQuestions {
		for j, subnet := range workerSubnets {
			f.Add(packet(f, q, subnet), byte(i*len(workerSubnets)+j), i%4 == 0, []byte{10, 20, 30, byte(j)})
		}
	}
	f.Add([]byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www"), byte(0), false, []byte{1, 2, 3, 4})
	f.Add(make([]byte, 11), byte(0), false, []byte{1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, req []byte, how byte, tcp bool, from []byte) {
		addr, ok := netip.AddrFromSlice(from)
		if !ok {
			return
		}
		change(t, s, &cfg, how)
		kept := bytes.Clone(req)
		want := freshAnswer(s, req, netip.AddrPortFrom(addr, 53), tcp)
		for range 2 { // the second answer comes from the memo
			got := worker.answer(req, netip.AddrPortFrom(addr, 53), tcp, buf)
			if !bytes.Equal(got, want) { // a cookie has the time in seconds, which may have changed
				want = freshAnswer(s, req, netip.AddrPortFrom(addr, 53), tcp)
				got = worker.answer(req, netip.AddrPortFrom(addr, 53), tcp, buf)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("%x is answered\n%x\nwith what was remembered,\n%x without", req, got, want)
			}
		}
		if !bytes.Equal(req, kept) {
			t.Fatal("the query was written to")
		}
	})
}

func freshAnswer(s *Server, req []byte, from netip.AddrPort, tcp bool) []byte {
	w := &worker{server: s}
	return bytes.Clone(w.answer(req, from, tcp, nil))
}

// TestMemo sends queries of many clients, so that slots are shared and client networks are split.
// It makes every kind of change in between.
func TestMemo(t *testing.T) {
	cfg := workerConfig(t)
	for i := range cfg.Nodes {
		// Without Serve, nothing probes this URL.
		cfg.Nodes[i].Probe = "http://" + cfg.Nodes[i].Addresses[0].String() + "/"
	}
	s := newServer(t, cfg)
	s.Log = slog.New(slog.DiscardHandler)
	w := newWorker(s)
	buf := make([]byte, dns.MaxMsgSize)
	for round := range 40 {
		change(t, s, &cfg, byte(round*7))
		for _, q := range workerQuestions[:11] {
			for i := range 300 {
				subnet := fmt.Sprintf("10.20.%d.%d/32", 30+i/256, i%256)
				if i%3 == 0 {
					subnet = fmt.Sprintf("fd00:0:0:1::%x/128", i)
				}
				req := packet(t, q, subnet)
				if got, want := w.answer(req, inTokyo, false, buf),
					freshAnswer(s, req, inTokyo, false); !bytes.Equal(got, want) {
					t.Fatalf("round %d: %s for %s is %x, want %x", round, q, subnet, got, want)
				}
			}
		}
	}
}

func TestMemoRoundsEnd(t *testing.T) {
	m := new(memo)
	m.follow(0, 0)
	m.slots[5] = choice{round: 1}
	m.round = 1<<32 - 1
	m.follow(0, 1)
	if m.round != 1 || m.slots[5].round != 0 {
		t.Errorf("round %d, slot of round %d", m.round, m.slots[5].round)
	}
}

// Answers for edge names don't allocate, with or without a memo.
func TestAnswerAllocates(t *testing.T) {
	cfg := workerConfig(t)
	for i := range cfg.Nodes {
		// Without Serve, nothing probes this URL.
		cfg.Nodes[i].Probe = "http://" + cfg.Nodes[i].Addresses[0].String() + "/"
	}
	s := newServer(t, cfg)
	for _, state := range s.current.Load().states {
		state.set(healthy)
	}
	s.current.Load().states["tyo1"].endpoints[1].phase.Store(unhealthy)
	for name, w := range map[string]*worker{"memo": newWorker(s), "no memo": {server: s}} {
		buf := make([]byte, ednsUDPSize)
		for _, q := range workerQuestions[:10] {
			for _, subnet := range workerSubnets {
				req := packet(t, q, subnet)
				w.answer(req, inHelsinki, false, buf) // creates the counters
				if n := testing.AllocsPerRun(50, func() { w.answer(req, inHelsinki, false, buf) }); n != 0 {
					t.Errorf("%s: %s with subnet %q: %v allocations", name, q, subnet, n)
				}
			}
		}
	}
}

// BenchmarkAnswer measures answers to queries with a client subnet.
func BenchmarkAnswer(b *testing.B) {
	s := newServer(b, workerConfig(b))
	for _, q := range []string{"www.example.com. A", "all.example.com. A", "all.example.com. HTTPS",
		"mail.example.com. A"} {
		for name, w := range map[string]func() *worker{"memo": func() *worker { return newWorker(s) },
			"no memo": func() *worker { return &worker{server: s} }} {
			b.Run(q+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				var reqs [][]byte
				for i := range 1000 {
					reqs = append(reqs, packet(b, q, fmt.Sprintf("193.%d.%d.0/24", i/256, i%256)))
				}
				b.RunParallel(func(pb *testing.PB) {
					w, buf := w(), make([]byte, ednsUDPSize)
					for i := 0; pb.Next(); i++ {
						w.answer(reqs[i%len(reqs)], inHelsinki, false, buf)
					}
				})
			})
		}
	}
}

// BenchmarkFind measures looking up the place of an address.
func BenchmarkFind(b *testing.B) {
	l := newServer(b, workerConfig(b)).current.Load().locator
	for _, addr := range addrs("193.166.3.2", "8.8.8.8", "10.20.30.7", "2001:708::1") {
		b.Run(addr.String(), func(b *testing.B) {
			b.ReportAllocs()
			var buf Place
			for range b.N {
				l.find(addr, &buf)
			}
		})
	}
}
