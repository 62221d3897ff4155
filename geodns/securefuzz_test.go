package geodns

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// FuzzSameSigned is FuzzSamePath for signed zones. The second worker shares no cached signature
// with the first, but must make the same ones.
func FuzzSameSigned(f *testing.F) {
	s, slow := signedServer(f), signedServer(f)
	now := time.Now().Unix()
	for _, s := range []*Server{s, slow} {
		s.Log = slog.New(slog.DiscardHandler)
		s.signingNow = func() int64 { return now }
	}
	worker := newWorker(s)
	buf := make([]byte, dns.MaxMsgSize)
	for i, q := range signedQuestions {
		m := secured(q)
		if i%3 == 0 {
			m.IsEdns0().SetUDPSize(512)
		}
		req, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(req, i%4 == 0, []byte{10, 20, 30, byte(i)})
	}
	f.Fuzz(func(t *testing.T, req []byte, tcp bool, from []byte) {
		addr, ok := netip.AddrFromSlice(from)
		if !ok {
			return
		}
		slow.current.Load().signatures.answers = make(signatureCache, 8)
		client := netip.AddrPortFrom(addr, 53)
		fast := worker.answer(req, client, tcp, buf)
		again := (&worker2{slow}).answer(req, client, tcp)
		if !bytes.Equal(withoutCookie(fast), withoutCookie(again)) {
			t.Fatalf("%x from %v:\n%x\n%x", req, client, fast, again)
		}
		if testutil.ToFloat64(s.metrics.panics)+testutil.ToFloat64(slow.metrics.panics) > 0 {
			t.Fatalf("%x from %v: a panic", req, client)
		}
	})
}

// worker2 answers each query with a new worker.
type worker2 struct{ s *Server }

func (w *worker2) answer(req []byte, from netip.AddrPort, tcp bool) []byte {
	return (&worker{server: w.s}).answer(req, from, tcp, nil)
}

// withoutCookie returns a response, or nil if it has a server's cookie, which differs.
func withoutCookie(b []byte) []byte {
	m := new(dns.Msg)
	if m.Unpack(b) != nil || m.IsEdns0() == nil {
		return b
	}
	for _, o := range m.IsEdns0().Option {
		if o.Option() == dns.EDNS0COOKIE {
			return nil
		}
	}
	return b
}

// BenchmarkSigned compares an answer for an edge name without and with its signature.
func BenchmarkSigned(b *testing.B) {
	for _, q := range []string{"www.example.com. A", "nowhere.example.com. A", "x.wild.example.com. A"} {
		for _, do := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s do=%v", q, do), func(b *testing.B) {
				s := signedServer(b)
				w := newWorker(s)
				req, err := question(q).SetEdns0(1232, do).Pack()
				if err != nil {
					b.Fatal(err)
				}
				buf := make([]byte, ednsUDPSize)
				w.clock, w.wall = s.limiter.now(), time.Now().Unix()
				b.ReportAllocs()
				for b.Loop() {
					w.answer(req, inHelsinki, false, buf)
				}
			})
		}
	}
}
