package origin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// tier configures a test server that stands for an edge or the origin.
type tier struct {
	name, failed string
	status       int // 0 means 200; -1 means that the server is down
}

// newRoute starts a route through the given tiers; nil leaves a tier out. The returned function
// lists the servers that got a request, each with its TierField.
func newRoute(t *testing.T, ring, shield []tier) (*Route, func() string) {
	t.Helper()
	saw := make(chan string, 100)
	pool := func(tiers []tier, relays bool) *Pool {
		if tiers == nil {
			return nil
		}
		p := &Pool{Balance: Hash, Relays: relays, Retries: len(tiers), Log: discardLog}
		for _, c := range tiers {
			if c.name == "self" {
				s := serverAt(t, "https://self.example")
				s.Self = true
				p.Servers = append(p.Servers, s)
				continue
			}
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				v, ok := r.Header[TierField]
				saw <- c.name + map[bool]string{true: "=" + strings.Join(v, ",")}[ok]
				if c.failed != "" {
					w.Header().Set(FailedField, c.failed)
				}
				w.WriteHeader(max(c.status, 200))
				_, _ = io.WriteString(w, c.name)
			}))
			if t.Cleanup(s.Close); c.status == -1 {
				s.Close()
			}
			p.Servers = append(p.Servers, serverAt(t, s.URL))
		}
		return startPool(t, p)
	}
	route := &Route{Ring: pool(ring, true), Shield: pool(shield, true), Origin: pool([]tier{{name: "origin"}}, false)}
	return route, func() string {
		var all []string
		for len(saw) > 0 {
			all = append(all, <-saw)
		}
		return strings.Join(all, " ")
	}
}

func TestRoute(t *testing.T) {
	owner, shield, self := []tier{{name: "owner"}}, []tier{{name: "shield"}}, []tier{{name: "self"}}
	answers := func(status int, failed string) []tier { return []tier{{name: "owner", status: status, failed: failed}} }
	for _, c := range []struct {
		name         string
		ring, shield []tier
		came, stage  Stage
		want         string // the servers that get a request
		answer       string
	}{
		{"through all", owner, shield, ToOwner, ToOwner, "owner=shield", "owner"},
		{"from the owner", owner, shield, ToShield, ToShield, "shield=origin", "shield"},
		{"from the shield", owner, shield, ToOrigin, ToOrigin, "origin", "origin"},
		{"the owner itself", self, shield, ToOwner, ToShield, "shield=origin", "shield"},
		{"no ring", nil, shield, ToOwner, ToShield, "shield=origin", "shield"},
		{"no shield", owner, nil, ToShield, ToOrigin, "origin", "origin"},
		{"nothing between", nil, nil, ToOwner, ToOrigin, "origin", "origin"},
		{"the owner itself without a shield", self, nil, ToOwner, ToOrigin, "origin", "origin"},
		{"the owner is down", answers(-1, ""), shield, ToOwner, ToOwner, "shield=origin", "shield"},
		{"the shield is down", owner, []tier{{name: "shield", status: -1}}, ToShield, ToShield, "origin", "origin"},
		{"all are down", answers(-1, ""), []tier{{name: "shield", status: -1}}, ToOwner, ToOwner, "origin", "origin"},
		{"the owner does not know the site", answers(421, "refused"), shield, ToOwner, ToOwner,
			"owner=shield shield=origin", "shield"},
		{"the owner saw it before", answers(508, "refused"), shield, ToOwner, ToOwner, "owner=shield shield=origin",
			"shield"},
		{"the owner reaches nobody", answers(502, "connect-failed"), shield, ToOwner, ToOwner,
			"owner=shield shield=origin", "shield"},
		{"nor does the shield", answers(502, "x"), []tier{{"shield", "x", 502}}, ToOwner, ToOwner,
			"owner=shield shield=origin origin", "origin"},
		// These statuses come from the origin or are not worth another wait.
		{"502 of the origin", answers(502, ""), shield, ToOwner, ToOwner, "owner=shield", "owner"},
		{"500 of the origin", answers(500, ""), shield, ToOwner, ToOwner, "owner=shield", "owner"},
		{"503 of the origin", answers(503, ""), shield, ToOwner, ToOwner, "owner=shield", "owner"},
		{"421 of the origin", answers(421, ""), shield, ToOwner, ToOwner, "owner=shield", "owner"},
		{"504 of the origin", answers(504, ""), shield, ToOwner, ToOwner, "owner=shield", "owner"},
		{"404", answers(404, ""), shield, ToOwner, ToOwner, "owner=shield", "owner"},
	} {
		t.Run(c.name, func(t *testing.T) {
			route, saw := newRoute(t, c.ring, c.shield)
			stage := route.Stage("key", c.came)
			if stage != c.stage {
				t.Errorf("stage %d, want %d", stage, c.stage)
			}
			r := request(t, "GET", "/", "")
			resp, err := route.Fetch(r, FetchOptions{Key: "key"}, stage)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if got := saw(); got != c.want || string(body) != c.answer {
				t.Errorf("%q were asked, want %q; %q answered", got, c.want, body)
			}
			if _, ok := r.Header[TierField]; ok {
				t.Error("the request itself was changed")
			}
			for _, p := range []*Pool{route.Ring, route.Shield, route.Origin} {
				if p != nil {
					noPlaceTaken(t, p)
				}
			}
		})
	}
}

// If an edge reports that the origin is slow or busy, Fetch returns that as an error without asking
// the next tier, so that the caller may serve a stale response.
func TestRouteOfWhoSaysNo(t *testing.T) {
	for status, is := range map[int]func(error) bool{
		504: IsTimeout, 503: func(err error) bool { return errors.Is(err, ErrBusy) },
	} {
		route, saw := newRoute(t, []tier{{name: "owner", status: status, failed: "x"}}, []tier{{name: "shield"}})
		_, err := route.Fetch(request(t, "GET", "/", ""), FetchOptions{Key: "key"}, ToOwner)
		if got := saw(); err == nil || !is(err) || got != "owner=shield" {
			t.Errorf("%d: %v; %q were asked", status, err, got)
		}
		noPlaceTaken(t, route.Ring)
	}
}

// A request that may not be repeated goes to the origin directly.
func TestRouteOfAPost(t *testing.T) {
	route, saw := newRoute(t, []tier{{name: "owner"}}, []tier{{name: "shield"}})
	resp, err := route.Fetch(request(t, "POST", "/", "x"), FetchOptions{Key: "key"}, ToOwner)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := saw(); got != "origin" {
		t.Errorf("%q were asked", got)
	}
}

// All edges of a ring agree on the owner of a key, and the owner knows that it is the owner.
func TestRingAgrees(t *testing.T) {
	const edges = 3
	rings := make([]*Pool, edges)
	for i := range rings {
		p := &Pool{Balance: Hash, Relays: true}
		for j := range edges {
			s := serverAt(t, "https://192.0.2."+string(rune('1'+j)))
			s.Self = i == j
			p.Servers = append(p.Servers, s)
		}
		rings[i] = startPool(t, p)
	}
	shield := newIdlePool(t, &Pool{}, 1)
	owned := make([]int, edges)
	for k := range 300 {
		owners := 0
		for i, ring := range rings {
			if (&Route{Ring: ring, Shield: shield}).Stage(strings.Repeat("k", k), ToOwner) == ToShield {
				owners++
				owned[i]++
			}
		}
		if owners != 1 {
			t.Fatalf("key %d has %d owners", k, owners)
		}
	}
	for i, n := range owned {
		if n < 60 {
			t.Errorf("edge %d owns %d of 300 keys", i, n)
		}
	}
	// The keys of an edge that is down get other owners. If all other edges are down, this edge
	// owns all keys.
	setStates(rings[0], "", "refuses", "bad")
	if stage := (&Route{Ring: rings[0], Shield: shield}).Stage("any", ToOwner); stage != ToShield {
		t.Errorf("alone in the ring: stage %d", stage)
	}
}

// A 5xx response of an edge comes from the origin. It is not retried at another edge of the same
// tier and is no failure of the edge.
func TestAnswersOfEdgesAreNotRetried(t *testing.T) {
	route, saw := newRoute(t, []tier{{name: "edge", status: 503}, {name: "edge", status: 503},
		{name: "edge", status: 503}}, nil)
	for i := range 6 {
		resp, err := route.Fetch(request(t, "GET", "/", ""), FetchOptions{Key: "key"}, ToOwner)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := saw(); resp.StatusCode != 503 || got != "edge=shield" {
			t.Errorf("request %d: status %d, %q were asked", i, resp.StatusCode, got)
		}
	}
	for _, s := range route.Ring.Status().Servers {
		if s.State != "up" || len(s.Failures) != 0 {
			t.Errorf("an edge is %s, failures %v", s.State, s.Failures)
		}
	}
}

// A canceled request does not go to the next tier.
func TestRouteOfWhoIsGone(t *testing.T) {
	reached := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		<-r.Context().Done()
	}))
	defer s.Close()
	route, saw := newRoute(t, nil, []tier{{name: "shield"}})
	route.Ring = startPool(t, &Pool{Balance: Hash, Relays: true, Servers: []Server{serverAt(t, s.URL)},
		Log: discardLog})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-reached
		cancel()
	}()
	if _, err := route.Fetch(request(t, "GET", "/", "").WithContext(ctx), FetchOptions{Key: "key"},
		ToOwner); Reason(err) != "canceled" {
		t.Errorf("error %v", err)
	}
	if got := saw(); got != "" {
		t.Errorf("%s was asked", got)
	}
}

func TestParseStage(t *testing.T) {
	for s, want := range map[string]Stage{"": ToOwner, "shield": ToShield, "origin": ToOrigin, "Origin": ToOwner,
		"x": ToOwner} {
		if got := ParseStage(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}
