//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, c := range []struct {
		all  []float64
		q    float64
		want float64
	}{{nil, 0.5, 0}, {[]float64{7}, 0.5, 7}, {[]float64{7}, 0.99, 7}, {[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 3, 1, 2}, 0.5, 2}, {hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 1, 100}, {hundred, 0, 1}} {
		if got := quantile(c.all, c.q); got != c.want {
			t.Errorf("quantile %v of %v is %v, want %v", c.q, c.all, got, c.want)
		}
	}
	if hundred[0] != 100 {
		t.Error("the values were sorted in place")
	}
}

func TestKindOf(t *testing.T) {
	for status, want := range map[string]string{
		"kaiku; hit; ttl=3590":                      "hit",
		"kaiku; hit; ttl=-3":                        "stale",
		"kaiku; fwd=uri-miss; stored":               "miss",
		"kaiku; hit; ttl=-9; detail=stale-if-error": "stale, as the origin failed",
		"kaiku; fwd=stale; fwd-status=304":          "asked again",
		"":                                          "",
	} {
		if got := kindOf(status); got != want {
			t.Errorf("%q is %q, want %q", status, got, want)
		}
	}
}

func TestSum(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	visit := func(after float64, err string) sample {
		return sample{Start: at.Add(time.Duration(after * float64(time.Second))), Took: 10, Addr: address("hel1"),
			Cache: "kaiku; hit; ttl=9", Err: err}
	}
	res := sum([]sample{visit(-3, ""), visit(-0.5, "refused"), visit(1, "refused"), visit(7, "refused"), visit(9, ""),
		visit(31, "")}, at, at.Add(30*time.Second))
	if res.Before.Visits != 1 || res.During.Visits != 4 || res.After.Visits != 1 || res.During.Failed != 3 ||
		res.First != -0.5 || res.Well != 7 {
		t.Errorf("got %+v", res)
	}
	if res.During.Served["hel1"] != 1 || res.During.Cache["hit"] != 1 || res.Errors["refused"] != 3 {
		t.Errorf("got %+v", res)
	}
	if res = sum([]sample{visit(1, "")}, at, at.Add(time.Second)); res.Well != 0 || res.First != 0 {
		t.Errorf("nothing failed, and got %+v", res)
	}
}

// Every form of the report shows a goal that is not met.
func TestGoalsNotMet(t *testing.T) {
	r := &report{Time: "2026-01-01T00:00:00Z"}
	for _, way := range ways() {
		r.Cases = append(r.Cases, feltCase{City: string(world.Helsinki), Body: "1k", Proto: "h2", Way: way,
			Samples: []timing{{First: 300, Last: 300}}})
	}
	r.judgeFeel()
	if i := slices.IndexFunc(r.Goals,
		func(g goal) bool { return strings.Contains(g.What, "hit's first byte (1k, h2), with lookup") }); i < 0 ||
		r.Goals[i].Met || r.Goals[i].Figure != "1.000" {
		t.Errorf("goals are %+v", r.Goals)
	}
	r.judge(false, "a goal", "%d", 7)
	r.why("because")
	r.judge(true, "another", "%d", 8)
	r.why("never told")
	var text bytes.Buffer
	if err := r.print(&text); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{text.String(), string(page(r, "docs/finland.svg"))} {
		if !strings.Contains(strings.ToLower(s), "not met") || !strings.Contains(s, "because") ||
			strings.Contains(s, "never told") {
			t.Errorf("not told:\n%s", s)
		}
	}
	for d := xml.NewDecoder(bytes.NewReader(chart(r))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// All machines of the world have different addresses, and each pair has a delay.
func TestHosts(t *testing.T) {
	seen := map[string]bool{}
	for _, h := range hosts() {
		network, err := h.Addr.Prefix(24)
		if err != nil || seen[h.Name] || seen[network.String()] {
			t.Errorf("%s %s is there twice: %v", h.Name, network, err)
		}
		seen[h.Name], seen[network.String()] = true, true
		for _, other := range hosts() {
			if _, err := world.Between(h.At, other.At); err != nil {
				t.Error(err)
			}
		}
	}
	if got := names()[address("ns2")]; got != "ns2" {
		t.Errorf("the address of ns2 is that of %q", got)
	}
}

// A stub keeps answers for their TTL. It repeats the query if no answer comes.
func TestStub(t *testing.T) {
	asked := make(chan string, 10)
	server := &dns.Server{Addr: "127.0.0.1:0", Net: "udp",
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			asked <- q.Question[0].Name
			if len(asked) == 1 {
				return // lost
			}
			m := new(dns.Msg).SetReply(q)
			for _, text := range []string{"www.example.com. 300 IN A 198.18.3.10",
				"www.example.com. 300 IN A 198.18.6.10"} {
				rr, err := dns.NewRR(text)
				if err != nil {
					t.Error(err)
				}
				m.Answer = append(m.Answer, rr)
			}
			if err := w.WriteMsg(m); err != nil {
				t.Error(err)
			}
		})}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	<-started
	s := &stub{server: server.PacketConn.LocalAddr().String(), cached: true}
	for range 3 {
		addrs, err := s.lookup(t.Context(), "www.example.com")
		if err != nil || !slices.Equal(addrs, []string{"198.18.3.10", "198.18.6.10"}) {
			t.Errorf("got %v, %v", addrs, err)
		}
	}
	if len(asked) != 2 {
		t.Errorf("asked %d times", len(asked))
	}
	if err := server.Shutdown(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
