package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// nameServer is one that runs in the test, but for its answers.
type nameServer struct {
	*ChallengeFollower
	mu   sync.Mutex
	now  map[string][]string // what it answers
	gate chan struct{}       // not nil: Set waits until it is closed
	stop func()
}

// serveParts serves until stop is called, or the test ends.
func serveParts(t testing.TB, parts ...func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, serve := range parts {
		group.Go(func() {
			if err := serve(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func startNameServer(t testing.TB, c *Client, gate chan struct{}) *nameServer {
	t.Helper()
	s := &nameServer{gate: gate}
	s.ChallengeFollower = &ChallengeFollower{Client: c, Set: func(values map[string][]string) {
		if s.gate != nil && len(values) > 0 {
			<-s.gate
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.now = values
	}}
	registry := &Registry{Client: c,
		Self: func() Lease { return Lease{Roles: []string{RoleGeoDNS}, Challenges: s.Applied()} }}
	s.Changed = registry.Renew
	s.stop = serveParts(t, registry.Serve, s.Serve)
	return s
}

// answers gives the values at a name.
func (s *nameServer) answers(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.now[name]))
}

// startChallenges gives an edge's side, once there is a bucket, which is made after that of the
// leases.
func startChallenges(t testing.TB, c *Client) *Challenges {
	t.Helper()
	testwait.Until(t, "there is a bucket of challenges", func() bool {
		_, err := c.open(t.Context(), challengeBucket)
		return err == nil
	})
	r := &Registry{Client: c, Self: func() Lease { return Lease{Roles: []string{RoleEdge}} }}
	serveParts(t, r.Serve)
	return &Challenges{Client: c, Registry: r}
}

// live waits until the edge sees name servers.
func (c *Challenges) live(t testing.TB, n int) {
	t.Helper()
	testwait.Until(t, fmt.Sprintf("%d name servers are live", n), func() bool {
		live, _ := c.behind(Position{})
		return len(live) == n
	})
}

// present presents, which must come to an end soon.
func (c *Challenges) present(t testing.TB, name, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.Present(ctx, name, value); err != nil {
		t.Fatal(err)
	}
}

const challenged = "_acme-challenge.www.example.com"

// wantAnswers checks what name servers answer at the challenged name.
func wantAnswers(t *testing.T, want []string, servers ...*nameServer) {
	t.Helper()
	for _, s := range servers {
		if got := s.answers(challenged); !slices.Equal(got, want) {
			t.Errorf("answers are %q, want %q", got, want)
		}
	}
}

// wantWait presents a value, which is not done within a quarter of a second, and returns the error.
func (c *Challenges) wantWait(t *testing.T, name, value string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	err := c.Present(ctx, name, value)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%q is presented: %v", value, err)
	}
	return err.Error()
}

// Present returns once all name servers answer, and not before.
func TestChallenges(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	c := startChallenges(t, dial(t, nodes, "hel1", RoleEdge))
	testwait.Until(t, "the edge is in touch", func() bool { return len(c.Registry.Nodes()) > 0 })
	testwait.Until(t, "the error is that there is no name server", func() bool {
		return strings.Contains(c.wantWait(t, challenged, "early"), "no name server")
	})
	one := startNameServer(t, dial(t, nodes, "ns1", RoleGeoDNS), nil)
	testwait.Until(t, "ns1, which started late, answers with what was published before",
		func() bool { return slices.Equal(one.answers(challenged), []string{"early"}) })
	gate := make(chan struct{})
	two := startNameServer(t, dial(t, nodes, "ns2", RoleGeoDNS), gate)
	c.live(t, 2)

	// ns2 has the value and does not answer yet: Present waits for it.
	testwait.Until(t, "the error names ns2 alone", func() bool {
		err := c.wantWait(t, "_ACME-challenge.www.example.com.", "a")
		return strings.Contains(err, "ns2") && !strings.Contains(err, "ns1")
	})
	testwait.Until(t, "ns1 answers with both",
		func() bool { return slices.Equal(one.answers(challenged), []string{"a", "early"}) })
	done := make(chan error, 1)
	go func() { done <- c.Present(t.Context(), challenged, "b") }()
	testwait.Until(t, "ns1 answers with b", func() bool { return slices.Contains(one.answers(challenged), "b") })
	select {
	case err := <-done:
		t.Fatalf("returned before ns2 answers: %v", err)
	default:
	}
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantAnswers(t, []string{"a", "b", "early"}, one, two)

	// Values that are presented again, with others, or after removals are waited for, too.
	c.present(t, challenged, "a")
	c.present(t, "_acme-challenge.example.com", "*")
	for _, value := range []string{"a", "early", "never there"} {
		if err := c.Remove(t.Context(), challenged, value); err != nil {
			t.Error(err)
		}
	}
	c.present(t, challenged, "c")
	wantAnswers(t, []string{"b", "c"}, one, two)
	for _, s := range []*nameServer{one, two} {
		if got := s.answers("_acme-challenge.example.com"); !slices.Equal(got, []string{"*"}) {
			t.Errorf("answers are %q", got)
		}
	}

	two.stop()
	two = startNameServer(t, dial(t, nodes, "ns2", RoleGeoDNS), nil)
	wait, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := two.Wait(wait); err != nil {
		t.Error(err)
	}
	wantAnswers(t, []string{"b", "c"}, two) // as before its restart
}

func TestChallengesRefused(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := new(ChallengeFollower).Wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a follower that was never served: %v", err)
	}
	c := startChallenges(t, dial(t, startControl(t, t.TempDir(), 1), "hel1", RoleEdge))
	for _, bad := range [][2]string{{"", "x"}, {".", "x"}, {strings.Repeat("a", 254), "x"}, {"a", ""},
		{"a", strings.Repeat("x", 256)}} {
		if err := c.Present(t.Context(), bad[0], bad[1]); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("%q is presented at %q: %v", bad[1], bad[0], err)
		}
	}
}

// A name server that is not live is waited for, as one may be starting, but not for ever.
func TestChallengesStartingNameServer(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	c := startChallenges(t, dial(t, nodes, "hel1", RoleEdge))
	c.Servers, c.Patience = []string{"ns1", "ns2"}, time.Hour
	one := startNameServer(t, dial(t, nodes, "ns1", RoleGeoDNS), nil)
	done := make(chan error, 1)
	go func() { done <- c.Present(t.Context(), challenged, "a") }()
	testwait.Until(t, "ns1 answers", func() bool { return slices.Equal(one.answers(challenged), []string{"a"}) })
	c.live(t, 1)
	select {
	case err := <-done:
		t.Fatalf("returned before ns2 is live: %v", err)
	default:
	}
	two := startNameServer(t, dial(t, nodes, "ns2", RoleGeoDNS), nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := two.answers(challenged); !slices.Equal(got, []string{"a"}) {
		t.Errorf("ns2 answers %q", got)
	}
	c.Servers, c.Patience = []string{"ns1", "ns2", "lost"}, time.Millisecond
	c.present(t, challenged, "b")
}

// One that is dead is waited for until its lease has ended, and no longer.
func TestChallengesDeadNameServer(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	c := startChallenges(t, dial(t, nodes, "hel1", RoleEdge))
	startNameServer(t, dial(t, nodes, "ns1", RoleGeoDNS), nil)
	wall := newRelay(t, nodes[0].Addr)
	startNameServer(t, dial(t, []*control{{Control: &Control{Addr: wall.Addr().String()}}}, "ns2", RoleGeoDNS), nil)
	c.live(t, 2)
	c.present(t, challenged, "a")
	wall.set(true) // from one moment to the next, so that it can't take its lease back
	began := time.Now()
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Present(short, challenged, "b"); err == nil || !strings.Contains(err.Error(), "ns2") {
		t.Errorf("with a name server that died just now: %v", err)
	}
	c.present(t, challenged, "c")
	if took := time.Since(began); took < LeaseTime-2*renewEvery {
		t.Errorf("the lease of ns2 ended after %v", took)
	}
}

// A control plane whose data was wiped begins its revisions anew: what name servers had before does
// not count.
func TestChallengesWiped(t *testing.T) {
	dir := t.TempDir()
	nodes := startControl(t, dir, 1)
	c := startChallenges(t, dial(t, nodes, "hel1", RoleEdge))
	s := startNameServer(t, dial(t, nodes, "ns1", RoleGeoDNS), nil)
	c.live(t, 1)
	for i := range 5 {
		c.present(t, challenged, fmt.Sprint(i))
	}
	before := s.Applied()
	if before.Seq < 5 {
		t.Errorf("applied %v", before)
	}

	// Through a restart what is there stays.
	nodes[0].stop()
	nodes[0].start(t)
	testwait.Until(t, "the control node takes challenges", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return c.Present(ctx, challenged, "x") == nil
	})
	if got := s.answers(challenged); len(got) != 6 || s.Applied().Log != before.Log {
		t.Errorf("after a restart answers are %q, of %v", got, s.Applied())
	}

	nodes[0].stop()
	nodes[0].Dir = filepath.Join(dir, "another")
	nodes[0].start(t)
	testwait.Until(t, "the control node takes challenges", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return c.Present(ctx, challenged, "new") == nil
	})
	if got := s.answers(challenged); !slices.Equal(got, []string{"new"}) {
		t.Errorf("answers are %q", got)
	}
	if at := s.Applied(); at.Log == before.Log || at.Seq > before.Seq {
		t.Errorf("applied %v, before %v", at, before)
	}
}

// What expires is not answered any more, without anybody's changing anything, and though the
// control plane is gone.
func TestChallengesExpire(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	c := startChallenges(t, dial(t, nodes, "hel1", RoleEdge))
	s := startNameServer(t, dial(t, nodes, "ns1", RoleGeoDNS), nil)
	c.live(t, 1)
	kv, err := c.Client.open(t.Context(), challengeBucket)
	if err != nil {
		t.Fatal(err)
	}
	put := func(value string, lives time.Duration, key string) {
		t.Helper()
		record := challenge{Name: challenged, Value: value, Until: time.Now().Add(lives)}
		b, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		if key == "" {
			key = record.key()
		}
		if _, err := kv.Put(t.Context(), key, b); err != nil {
			t.Fatal(err)
		}
	}
	put("long ago", -time.Second, "")
	put("of another key", time.Hour, "61.62")
	if _, err := kv.Put(t.Context(), "61.63", []byte("{")); err != nil {
		t.Fatal(err)
	}
	put("short", 3*time.Second, "")
	c.present(t, challenged, "long") // by then all of it has come
	if got := s.answers(challenged); !slices.Equal(got, []string{"long", "short"}) {
		t.Errorf("answers are %q", got)
	}
	nodes[0].stop()
	testwait.Until(t, "short has expired", func() bool { return slices.Equal(s.answers(challenged), []string{"long"}) })
	if err := c.Present(t.Context(), challenged, "x"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("presented without a control node: %v", err)
	}
	if err := c.Remove(t.Context(), challenged, "x"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("removed without a control node: %v", err)
	}
}
