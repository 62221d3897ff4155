package geodns

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// Every sampled query is logged as one line of JSON. If the writer is slow, lines are dropped and
// no answer waits.
func TestQueryLog(t *testing.T) {
	out, in := io.Pipe()
	s := &Server{Log: slog.New(slog.DiscardHandler), QueryLog: &QueryLog{Log: slog.NewJSONHandler(in, nil)}}
	cfg := testConfig(t)
	cfg.RateLimit.Responses = -1
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	from := netip.MustParseAddrPort("192.0.2.7:5353")
	q := new(dns.Msg).SetQuestion("one.Example.com.", dns.TypeA).SetEdns0(1232, false)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1,
		SourceNetmask: 24,
		Address:       []byte{10, 1, 1, 0}})
	packet, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * maxLogged { // nothing reads the lines yet, so half of them are dropped
		if s.answer(packet, from, false, nil) == nil {
			t.Fatal("no answer")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.QueryLog.run(ctx)
	}()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal(lines.Err())
	}
	var got map[string]any
	if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", lines.Text(), err)
	}
	for key, want := range map[string]any{"client": "192.0.2.7", "transport": "udp", "name": "one.example.com.",
		"type": "A", "rcode": "NOERROR", "subnet": "10.1.1.0/24"} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	if nodes, _ := got["nodes"].([]any); len(nodes) != 1 {
		t.Errorf("nodes are %v", got["nodes"])
	}
	for range maxLogged - 1 {
		lines.Scan()
	}
	if n := len(s.QueryLog.lines); n != 0 {
		t.Errorf("%d lines are left", n)
	}
	cancel()
	<-done
	l := &QueryLog{Sample: 0.25}
	n := 0
	for range 40_000 {
		if l.samples() {
			n++
		}
	}
	if n < 9_000 || n > 11_000 {
		t.Errorf("a quarter of 40000 is %d", n)
	}
	if (*QueryLog)(nil).samples() {
		t.Error("without a log something is logged")
	}
}
