package promise

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// purge is a purge that was sent.
type purge struct {
	number int    // in the order of sending
	what   string // for readers of the report
	via    string // the edge that it was sent to
	floors map[string]int
	sent   time.Time
	seq    uint64
}

func (p *purge) String() string {
	return fmt.Sprintf("purge %d (%s, sequence %d, sent at %s by %s)", p.number, p.what, p.seq, clock(p.sent), p.via)
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

// floor is the oldest version that a purge leaves valid, and that purge.
type floor struct {
	version int
	at      time.Time // when the purge was acknowledged
	purge   *purge
}

// raise replaces the floor by a higher one.
func (f *floor) raise(other floor) {
	if other.version > f.version {
		*f = other
	}
}

// The kinds of violation.
const (
	kindApplied = "applied" // an edge served an older version than a purge that it was reported to have applied
	kindBound   = "bound"   // an edge served what a purge had purged that was acknowledged max_disconnected ago
	// an edge served a version from after an acknowledged purge, and later one from before it
	kindOrder     = "order"
	kindLost      = "lost"      // at the end, an acknowledged purge is not in effect
	kindTorn      = "torn"      // a body does not match its version
	kindRecovered = "recovered" // the fleet did not recover
)

// Violation is one violation of the promise.
type Violation struct {
	Kind    string    `json:"kind"`
	At      time.Time `json:"at"` // when the request was sent
	Edge    string    `json:"edge"`
	Object  string    `json:"object"`
	Version int       `json:"version"`
	Want    int       `json:"want"` // the oldest version that would have been right
	Why     string    `json:"why"`
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: asked at %s, %s gave version %d of %s, want %d: %s", v.Kind, clock(v.At), v.Edge,
		v.Version, v.Object, v.Want, v.Why)
}

// keptViolations is how many violations are kept in full. The others are only counted.
const keptViolations = 50

// at is an object at an edge.
type at struct{ edge, object string }

// checker knows all purges, and compares responses with them. All times are by the clock of this
// process. The zero value needs a limit.
type checker struct {
	limit time.Duration // max_disconnected

	mu       sync.Mutex
	acked    map[string][]floor // by object, in order of time: floors that are younger than limit
	bound    map[string]floor   // by object: the floor of purges acknowledged longer than limit ago
	all      map[string]floor   // by object: the floor of all acknowledged purges
	applied  map[at]floor
	given    map[at]floor // the newest acknowledged purge whose effect the edge has shown
	reads    int
	refused  int
	healed   time.Time // zero while the fault lasts
	accepted time.Time // acknowledgement of the first purge that was sent after healed
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

// ack records that a purge was acknowledged.
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

// refuse records that a purge was refused.
func (c *checker) refuse(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusedN++
	c.why[why]++
}

// apply records that an edge was reported to have applied a purge.
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

// expectation is what a response is compared with: what was known when the request was sent.
type expectation struct {
	at
	host                  string // the machine; an edge may have two
	asked                 time.Time
	applied, bound, given floor
	acked                 floor // the highest floor of all
}

// ask returns the expectation for a request. It must be called before the request is sent.
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

// answered compares a version with the expectation.
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

// last compares a version with all acknowledged purges, once everything is healed.
func (c *checker) last(e expectation, version int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	if f := c.all[e.object]; version < f.version {
		c.add(e.violation(kindLost, version, f.version, fmt.Sprintf("%s was acknowledged at %s, and all is healed",
			f.purge, clock(f.at))))
	}
}

// torn records a body that is no version of the object.
func (c *checker) torn(e expectation, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	c.add(e.violation(kindTorn, 0, 0, why.Error()))
}

// failed records a failed request, which the promise allows.
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

// heal records that the fault is over.
func (c *checker) heal(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.healed = now
}

// acknowledged returns how many purges were acknowledged.
func (c *checker) acknowledged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ackedN
}

// result returns the summary.
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

// shorten cuts a text to one line of bounded length.
func shorten(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	const most = 160
	if len(s) > most {
		return s[:most]
	}
	return s
}
