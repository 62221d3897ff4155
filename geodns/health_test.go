package geodns

import "testing"

func TestHysteresis(t *testing.T) {
	cfg := Health{UnhealthyAfter: 3, HealthyAfter: 2}
	for _, test := range []struct {
		results string // + is a good probe, - a failed one
		phases  string // phase after each probe, h or u; upper case if it has changed
	}{
		{"+", "H"},
		{"-", "U"},
		{"+--+--+", "Hhhhhhh"},
		{"+---", "HhhU"},
		{"+----++-++", "HhhUuuHhhh"},
		{"-+-+-++", "UuuuuuH"},
	} {
		var h hysteresis
		got := ""
		for _, r := range test.results {
			changed := h.observe(r == '+', cfg)
			letters := map[int32]string{healthy: "hH", unhealthy: "uU"}[h.phase]
			if changed {
				got += letters[1:]
			} else {
				got += letters[:1]
			}
		}
		if got != test.phases {
			t.Errorf("%s gives %s, want %s", test.results, got, test.phases)
		}
	}
}

// setPhase sets the phase of nodes by name, for tests without probes.
func setPhase(s *Server, phases map[string]int32) {
	for name, phase := range phases {
		s.current.Load().states[name].set(phase)
	}
}

// set sets the phase of all endpoints of a node.
func (s *nodeState) set(phase int32) {
	for _, e := range s.endpoints {
		e.phase.Store(phase)
	}
}

func TestAnswerByHealth(t *testing.T) {
	cfg := testConfig(t)
	for i := range cfg.Nodes {
		cfg.Nodes[i].Probe = "http://192.0.2.1/"
	}
	s := newServer(t, cfg)
	for _, test := range []struct {
		hel, nyc, tyo int32
		name          string
		want          []string
	}{
		{healthy, healthy, healthy, "www A", []string{"203.0.113.10"}},
		{unhealthy, healthy, healthy, "www A", []string{"198.51.100.20"}},
		{unknown, healthy, healthy, "www A", []string{"198.51.100.20"}},
		{unhealthy, unhealthy, healthy, "www A", []string{"203.0.113.10"}},
		{unhealthy, unhealthy, unhealthy, "two A", []string{"203.0.113.10", "198.51.100.20"}},
		{unhealthy, unhealthy, healthy, "two A", []string{"192.0.2.40", "192.0.2.41"}},
		{healthy, unhealthy, healthy, "two A", []string{"203.0.113.10", "192.0.2.40", "192.0.2.41"}},
		// One healthy node without IPv6 is better than two nodes that are down. Clients reach it
		// over IPv4.
		{unhealthy, unhealthy, healthy, "two AAAA", nil},
		{unhealthy, unhealthy, unhealthy, "two AAAA", []string{"2001:db8:1::10", "2001:db8:2::20"}},
		{unhealthy, healthy, healthy, "two AAAA", []string{"2001:db8:2::20"}},
	} {
		setPhase(s, map[string]int32{"hel1": test.hel, "nyc1": test.nyc, "tyo1": test.tyo})
		resp := mustAnswer(t, s, question(test.name[:3]+".example.com."+test.name[3:]), inHelsinki, false)
		var want []string
		ttl := map[string]string{"www": " 30 IN", "two": " 5 IN"}[test.name[:3]]
		for _, addr := range test.want {
			want = append(want, test.name[:3]+".example.com."+ttl+test.name[3:]+" "+addr)
		}
		wantRRs(t, test.name, resp.Answer, want...)
	}
	if got := s.Healthy(); got["hel1"] || !got["nyc1"] || !got["tyo1"] || len(got) != 3 {
		t.Errorf("healthy are %v", got)
	}
}
