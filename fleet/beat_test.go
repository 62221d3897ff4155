package fleet

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// beating is an edge with a lease, of a process that started at a time.
func beating(t *testing.T, nodes []*control, name, process string, started time.Time) *Registry {
	t.Helper()
	r := &Registry{Client: dial(t, nodes, name, RoleEdge), OnDemand: true, Edges: []string{name}, process: process}
	e := startEdge(t, r.Client, Position{})
	e.Changed = r.Renew
	r.Self = func() Lease {
		return Lease{Roles: []string{RoleEdge}, Started: started, Ready: e.InTouch(), Applied: e.Applied(),
			Unproven: !e.Proven()}
	}
	serveRegistry(t, r)
	return r
}

// entry is the lease of a node as the registry has it.
func entry(t *testing.T, c *Client, node string) (l Lease, revision uint64) {
	t.Helper()
	_, leases, _, err := c.ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e, err := leases.Get(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(e.Value(), &l); err != nil {
		t.Fatal(err)
	}
	return l, e.Revision()
}

// An edge that is there writes its lease once; others know by beats that it holds, and what it has
// applied. It writes it again if something else changes, and each time while a node reads the
// registry that counts no beats.
func TestBeats(t *testing.T) {
	t.Parallel()
	nodes := startControl(t, t.TempDir(), 1)
	edge := beating(t, nodes, "hel1", "", time.Now())
	reader, _ := leased(t, nodes, "ns1", RoleGeoDNS)
	testwait.Until(t, "the edge's beats are taken", edge.beats)
	var written, seq uint64
	tries := 0
	testwait.Until(t, "all of this is told by beats alone", func() bool { // a machine that stands still has it written
		_, written = entry(t, edge.Client, "hel1")
		for range 3 {
			at := reader.of("hel1").Renewed
			testwait.Until(t, "it is heard of again", func() bool {
				l := reader.of("hel1")
				return l.Renewed.After(at) && l.Live && l.Sure && !l.Unproven
			})
		}
		tries++
		seq = appendPurge(t, edge.Client, tries)
		testwait.Until(t, "it has applied a purge", func() bool { return reader.of("hel1").Applied.Seq == seq })
		for _, p := range edge.Wait(t.Context(), seq) {
			if !p.Applied {
				t.Errorf("it is told of as %+v", p)
			}
		}
		_, now := entry(t, edge.Client, "hel1")
		return now == written
	})

	old := dial(t, nodes, "ns2", RoleGeoDNS)
	putLease(t, old, Lease{Roles: []string{RoleGeoDNS}, Ready: true, Renewed: time.Now()})
	testwait.Until(t, "it writes its lease", func() bool {
		l, now := entry(t, edge.Client, "hel1")
		return now > written && l.Applied.Seq == seq
	})
}

// A second process with the name of an edge whose beats are taken is noticed, and so is one that
// has all that the first one has in its memory.
func TestBeatsOfDuplicates(t *testing.T) {
	t.Parallel()
	nodes := startControl(t, t.TempDir(), 1)
	began := time.Now()
	first := beating(t, nodes, "hel1", "", began)
	testwait.Until(t, "the edge's beats are taken", first.beats)
	second := beating(t, nodes, "hel1", "", began.Add(time.Second))
	testwait.Until(t, "the second is refused", second.Refused)
	if first.Refused() {
		t.Error("both are refused")
	}

	a := beating(t, nodes, "nyc1", "same", began)
	testwait.Until(t, "the edge's beats are taken", a.beats)
	b := beating(t, nodes, "nyc1", "same", began)
	testwait.Until(t, "one of them is refused", func() bool { return a.Refused() != b.Refused() })
}

// Two processes that make the same beats, as the memory of one was copied, can't both go on.
func TestBeatsOnce(t *testing.T) {
	t.Parallel()
	at := time.Now()
	h := newBeats(&Control{}, &Registry{leases: map[string]seen{}})
	h.read, h.back = true, at
	h.table.leases["n"] = seen{Lease: Lease{Node: "n", Process: "p", Renewed: at}, written: at}
	b := beat{Process: "p", Lease: at, N: 7}
	if !h.take("n", b) {
		t.Fatal("a beat was not taken")
	}
	if h.take("n", b) {
		t.Error("it was taken twice")
	}
	if h.collect(); h.table.takeBeats(beatsOf(t, heardBeat{Node: "n", beat: b})) && h.take("n", b) {
		t.Error("it was taken twice")
	}
	if b.N++; !h.take("n", b) {
		t.Error("the next one was not taken")
	}
	b.N, h.back = 9, at.Add(-time.Minute)
	if h.take("n", b) {
		t.Error("one was taken that nobody may hear of")
	}
}

// entryOf is an entry of the registry.
type entryOf struct {
	jetstream.KeyValueEntry
	key   string
	value []byte
}

func (e entryOf) Key() string                   { return e.key }
func (e entryOf) Value() []byte                 { return e.value }
func (entryOf) Operation() jetstream.KeyValueOp { return jetstream.KeyValuePut }

func beatsOf(t testing.TB, all ...heardBeat) entryOf {
	t.Helper()
	b, err := json.Marshal(beatsEntry{all})
	if err != nil {
		t.Fatal(err)
	}
	return entryOf{key: beatsPrefix + "c1", value: b}
}

// A beat counts for the lease that it is of, once, and from when it was made.
func TestBeatCounts(t *testing.T) {
	t.Parallel()
	now := time.Now()
	good := heardBeat{Node: "n", beat: beat{Process: "p", Lease: now, N: 8, Renewed: now.Add(time.Minute), Ready: true}}
	for name, c := range map[string]struct {
		change   func(*Registry, *heardBeat)
		counts   bool
		notAfter time.Duration
	}{
		"good":                    {func(*Registry, *heardBeat) {}, true, 0},
		"of a while ago":          {func(_ *Registry, b *heardBeat) { b.Age = 4000 }, true, -4 * time.Second},
		"of the future":           {func(_ *Registry, b *heardBeat) { b.Age = -4000 }, false, 0},
		"of before the watch":     {func(r *Registry, _ *heardBeat) { r.catching = true }, false, 0},
		"of another process":      {func(_ *Registry, b *heardBeat) { b.Process = "q" }, false, 0},
		"of no process":           {func(_ *Registry, b *heardBeat) { b.Process = "" }, false, 0},
		"of a lease before":       {func(_ *Registry, b *heardBeat) { b.Lease = now.Add(-time.Second) }, false, 0},
		"that was heard of":       {func(_ *Registry, b *heardBeat) { b.N = 7 }, false, 0},
		"of a node without lease": {func(_ *Registry, b *heardBeat) { b.Node = "m" }, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Registry{leases: map[string]seen{"n": {Lease: Lease{Node: "n", Process: "p", Renewed: now},
				written: now,
				n:       7, at: now.Add(-time.Minute)}}}
			b := good
			c.change(r, &b)
			r.take(beatsOf(t, b))
			s := r.leases["n"]
			if s.Sure != c.counts || s.Ready != c.counts || len(r.leases) != 1 {
				t.Errorf("it counts: %t, want %t", s.Sure, c.counts)
			}
			if c.counts && s.at.After(time.Now().Add(c.notAfter)) {
				t.Errorf("the node was heard of at %v", s.at)
			}
		})
	}
}

// No question and no entry makes a node fail.
func FuzzBeats(f *testing.F) {
	at := time.Unix(1, 0).UTC()
	q, err := json.Marshal(endQuestion{Beat: &beat{Process: "p", Lease: at, N: 1}, Alone: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(q, beatsOf(f, heardBeat{Node: "n", beat: beat{Process: "p", Lease: at, N: 1}}).value)
	f.Fuzz(func(t *testing.T, question, entry []byte) {
		r := &Registry{leases: map[string]seen{"n": {Lease: Lease{Process: "p"}, written: at}}}
		h := newBeats(&Control{}, r)
		h.read, h.back = true, time.Now()
		if q, err := parseEndQuestion(question); err == nil && q.Beat != nil {
			if taken := h.take("n", *q.Beat); taken && !r.leases["n"].counts(*q.Beat) {
				t.Errorf("%s was taken", question)
			}
		}
		r.take(entryOf{key: beatsPrefix + "c1", value: entry})
		for name, s := range r.leases {
			if name != "n" || s.at.After(time.Now()) {
				t.Errorf("%s is of %v", name, s.at)
			}
		}
	})
}
