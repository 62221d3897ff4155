package promise

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// purge is one that was sent.
type purge struct {
	number int    // of the order in which they were sent
	what   string // for who reads of it
	via    string // the edge that was asked
	floors map[string]int
	sent   time.Time
	seq    uint64
}

func (p *purge) String() string {
	return fmt.Sprintf("purge %d (%s, sequence %d, sent at %s by %s)", p.number, p.what, p.seq, clock(p.sent), p.via)
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

// floor is the version that a purge leaves as the oldest, and the purge.
type floor struct {
	version int
	at      time.Time // when it was known
	purge   *purge
}

// raise takes another floor if that is higher.
func (f *floor) raise(other floor) {
	if other.version > f.version {
		*f = other
	}
}

// The kinds of violation.
const (
	kindApplied = "applied" // an edge that was told of as having applied a purge gave what is older
	kindBound   = "bound"   // an edge gave what a purge that was acknowledged max_disconnected ago had purged
	// an edge gave what came after a purge that was acknowledged, and then what was before it
	kindOrder     = "order"
	kindLost      = "lost"      // at the end an acknowledged purge is not in effect
	kindTorn      = "torn"      // a body is not that of its version
	kindRecovered = "recovered" // the fleet did not come back
)

// Violation is one that was seen.
type Violation struct {
	Kind    string    `json:"kind"`
	At      time.Time `json:"at"` // when it was asked
	Edge    string    `json:"edge"`
	Object  string    `json:"object"`
	Version int       `json:"version"`
	Want    int       `json:"want"` // the oldest version that was right
	Why     string    `json:"why"`
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: asked at %s, %s gave version %d of %s, want %d: %s", v.Kind, clock(v.At), v.Edge,
		v.Version, v.Object, v.Want, v.Why)
}

// keptViolations are those that are kept in full; the others are counted.
const keptViolations = 50

// at is an object at an edge.
type at struct{ edge, object string }

// checker knows what was purged, and holds answers to it. Everything that it says of a time is of
// the clock of this process. The zero value needs a limit.
type checker struct {
	limit time.Duration // max_disconnected

	mu       sync.Mutex
	acked    map[string][]floor // by object, in the order of time; those younger than limit
	bound    map[string]floor   // by object: what was acknowledged longer ago than limit
	all      map[string]floor   // by object: what was acknowledged
	applied  map[at]floor
	given    map[at]floor // the newest acknowledged purge whose effect the edge has shown
	reads    int
	refused  int
	healed   time.Time // zero before that
	accepted time.Time // of the first purge that was sent and acknowledged after that
	kinds    map[string]int
	kept     []Violation
	ackedN   int
	refusedN int
	appliedN int
	why      map[string]int
}

func newChecker(limit time.Duration) *checker {
	return &checker{limit: limit, acked: map[string][]floor{}, bound: map[string]floor{}, all: map[string]floor{},
		applied: map[at]floor{}, given: map[at]floor{}, kinds: map[string]int{}, why: map[string]int{}}
}

// ack notes that a purge was acknowledged.
func (c *checker) ack(p *purge, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ackedN++
	if !c.healed.IsZero() && c.accepted.IsZero() && p.sent.After(c.healed) {
		c.accepted = now
	}
	for object, version := range p.floors {
		f := floor{version, now, p}
		c.acked[object] = append(c.acked[object], f)
		c.raise(c.all, object, f)
	}
}

func (c *checker) raise(in map[string]floor, object string, f floor) {
	old := in[object]
	old.raise(f)
	in[object] = old
}

// refuse notes that a purge was not taken.
func (c *checker) refuse(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusedN++
	c.why[why]++
}

// apply notes that an edge was told of as having applied a purge.
func (c *checker) apply(p *purge, edge string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.appliedN++
	for object, version := range p.floors {
		k := at{edge, object}
		old := c.applied[k]
		old.raise(floor{version, now, p})
		c.applied[k] = old
	}
}

// expectation is what an answer is held to: what was known when it was asked for.
type expectation struct {
	at
	host                  string // the machine, of which an edge may have two
	asked                 time.Time
	applied, bound, given floor
	acked                 floor // the newest of all
}

// ask is called before a machine of an edge is asked for an object.
func (c *checker) ask(edge, host, object string, now time.Time) expectation {
	c.mu.Lock()
	defer c.mu.Unlock()
	young := c.acked[object]
	for len(young) > 0 && now.Sub(young[0].at) > c.limit {
		c.raise(c.bound, object, young[0])
		young = young[1:]
	}
	c.acked[object] = young
	k := at{edge, object}
	e := expectation{at: k, host: host, asked: now, applied: c.applied[k], bound: c.bound[object],
		acked: c.all[object]}
	if host == edge {
		e.given = c.given[k]
	}
	return e
}

// answered holds a version to what was expected.
func (c *checker) answered(e expectation, version int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	switch {
	case version < e.applied.version:
		c.add(e.violation(kindApplied, version, e.applied.version,
			fmt.Sprintf("it had applied %s, which was known at %s", e.applied.purge, clock(e.applied.at))))
	case version < e.bound.version:
		c.add(e.violation(kindBound, version, e.bound.version,
			fmt.Sprintf("%s was acknowledged at %s, %.1f s before", e.bound.purge, clock(e.bound.at),
				e.asked.Sub(e.bound.at).Seconds())))
	case version < e.given.version:
		c.add(e.violation(kindOrder, version, e.given.version,
			fmt.Sprintf("it had given that at %s, after %s", clock(e.given.at), e.given.purge)))
	}
	if e.acked.purge != nil && version >= e.acked.version && e.host == e.edge {
		given := c.given[e.at]
		given.raise(floor{e.acked.version, e.asked, e.acked.purge})
		c.given[e.at] = given
	}
}

// last holds a version to all purges that were acknowledged, once all is healed.
func (c *checker) last(e expectation, version int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	if f := c.all[e.object]; version < f.version {
		c.add(e.violation(kindLost, version, f.version, fmt.Sprintf("%s was acknowledged at %s, and all is healed",
			f.purge, clock(f.at))))
	}
}

// torn notes an answer that is no version of the object.
func (c *checker) torn(e expectation, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	c.add(e.violation(kindTorn, 0, 0, why.Error()))
}

// failed notes that a request failed, which the promise allows.
func (c *checker) failed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused++
}

func (e expectation) violation(kind string, version, want int, why string) Violation {
	return Violation{Kind: kind, At: e.asked, Edge: e.host, Object: e.object, Version: version, Want: want, Why: why}
}

// add counts a violation. The caller holds mu.
func (c *checker) add(v Violation) {
	c.kinds[v.Kind]++
	if len(c.kept) < keptViolations {
		c.kept = append(c.kept, v)
	}
}

// heal notes that all is good again.
func (c *checker) heal(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.healed = now
}

// acknowledged is how many purges were.
func (c *checker) acknowledged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ackedN
}

// result sums it all up.
func (c *checker) result() Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := Result{Reads: c.reads, ReadsFailed: c.refused, Purges: c.ackedN, PurgesRefused: c.refusedN,
		Applied: c.appliedN, Kinds: c.kinds, First: c.kept}
	r.Refusals = c.why
	if !c.accepted.IsZero() {
		r.Accepted = c.accepted.Sub(c.healed)
	}
	return r
}

// shorten has a text in one line of bounded length.
func shorten(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	const most = 160
	if len(s) > most {
		return s[:most]
	}
	return s
}
