package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Lease is what a node reports of itself, every renewEvery.
type Lease struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Roles   []string  `json:"roles"`
	Region  string    `json:"region,omitempty"`
	Address string    `json:"address,omitempty"` // the first public address
	Load    float64   `json:"load"`              // 0 to 1, relative to its capacity
	Secure  bool      `json:"secure,omitempty"`  // an edge that has certificates for all its hosts
	Ready   bool      `json:"ready"`             // it serves, and trusts its store
	Applied Position  `json:"applied"`           // position in the log of purges; of an edge
	Started time.Time `json:"started"`
	// Process is a random name of the process; it changes with each start of the node.
	Process string `json:"process,omitempty"`
	// Sites identifies the sites and hosts in an edge's fleet file.
	Sites string `json:"sites,omitempty"`
	// Unproven means that Applied is not confirmed to be of the present log, see Follower.Proven.
	Unproven bool `json:"unproven,omitempty"`
	// Disk is the state of a control node's disk: "" is fine, else DiskScarce or DiskFull.
	Disk string `json:"disk,omitempty"`
	// Challenges is the position up to which a name server answers with challenges:
	// ChallengeFollower.Applied.
	Challenges Position  `json:"challenges,omitzero"`
	Renewed    time.Time `json:"renewed"` // by the node's own clock
	// Beats means that the node counts beats. Earlier versions don't.
	Beats    bool `json:"beats,omitempty"`
	Draining bool `json:"draining"`
	Live     bool `json:"live"` // whether it was renewed within LeaseTime; set by the reader
	// Sure means that the lease was seen to be renewed by a single process, so that its Applied
	// counts; set by the reader.
	Sure bool `json:"sure,omitempty"`
}

// Registry maintains the node's own lease, and knows the leases of the other nodes. Its fields are
// set before Serve.
type Registry struct {
	Client *Client
	// Self returns the node's lease, without Draining, Live and Renewed. If Self is nil, the node
	// has no lease and only watches.
	Self func() Lease
	// Edges are the names of all edges of the fleet.
	Edges []string
	// MaxDisconnected is how long another machine with this edge's name may trust its store after
	// its last sign of life; 0 means a minute.
	MaxDisconnected time.Duration

	process     string      // of this process
	revision    uint64      // of the lease that was written last; 0 means unknown
	ownRenewals []time.Time // Lease.Renewed of the leases that were written
	duplicate   duplicate
	refused     atomic.Bool

	// OnDemand is for nodes that rarely need the leases of others, such as edges. They ask the
	// control plane when they need them, or wait for a change. Other nodes get each renewal of each
	// lease.
	OnDemand bool

	view      rosterView
	selfMu    sync.Mutex // held while Self is called
	beatState beatState
	mu        sync.Mutex
	leases    map[string]seen
	drains    map[string]bool
	touched   time.Time // when the registry was last in touch
	since     time.Time // when the registry came in touch again after an outage
	watchers  []chan struct{}
	news      chan struct{} // of the node's own lease; made under mu
	watches   uint64        // number of watches so far
	catching  bool          // the present entries of the watch are still arriving

	querying  sync.Mutex // held during a query for the end of the log; guards the fields below
	queriedAt time.Time
	end       Position
	endErr    error
}

// frozen is the maximum age of a lease that counts as live when the registry is in touch again.
// Nobody would leave the control plane down for longer.
const frozen = time.Hour

// seen is a lease, and when it arrived.
type seen struct {
	Lease
	at      time.Time
	written time.Time // Renewed of the lease itself, without beats
	n       uint64    // of the last beat
	watch   uint64    // number of the watch that delivered the lease itself
	// before is the previous process with the node's name. back is when the name last returned to a
	// process that had it before.
	before string
	back   time.Time
}

// next returns the state after another lease of the node.
func (s seen) next(l Lease, at time.Time) seen {
	n := seen{Lease: l, at: at, written: l.Renewed, before: s.before, back: s.back}
	n.Sure = !s.Renewed.IsZero() // otherwise it may be one that nobody renews
	if l.Process != s.Process {
		if l.Process == s.before && l.Process != "" {
			n.back = at
		}
		n.before = s.Process
	}
	return n
}

// Serve maintains the lease and watches the others until ctx ends. Then it deletes the lease.
func (r *Registry) Serve(ctx context.Context) error {
	r.Client.registry.Store(r)
	out := outage{log: r.Client.Log, what: "registry: can't be reached; the last known state of other nodes stays in use"}
	for ctx.Err() == nil {
		began := time.Now()
		err := r.watch(ctx)
		if r.touchedSince(began) {
			out.over()
		}
		if err != nil && ctx.Err() == nil {
			r.Client.missed(err)
			if !errors.Is(err, errReconnected) {
				out.failed(err)
			}
		}
		if errors.Is(err, errReconnected) {
			continue // readers notice no gap
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	if _, leases, _, err := r.Client.ready(context.WithoutCancel(ctx)); err == nil && r.Self != nil && !r.Refused() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = leases.Delete(end, r.Client.Node) // it would expire anyway
	}
	return nil
}

// Renew triggers a renewal, because the lease has changed.
func (r *Registry) Renew() {
	select {
	case r.changed() <- struct{}{}:
	default:
	}
}

func (r *Registry) changed() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.news == nil {
		r.news = make(chan struct{}, 1)
	}
	return r.news
}

// watch renews the lease and watches the others until an error.
func (r *Registry) watch(ctx context.Context) error {
	anew, live := r.Client.connected(), r.live()
	r.hasWritten(Lease{})
	_, leases, drains, err := r.Client.ready(ctx)
	if err != nil {
		return err
	}
	_ = r.renew(ctx, leases) // before the watches, which take several round trips; it is done again later
	var nodes, flags <-chan jetstream.KeyValueEntry
	watches, again, old := r.mustWatch(ctx)
	if watches {
		for _, w := range []struct {
			of jetstream.KeyValue
			to *<-chan jetstream.KeyValueEntry
		}{{leases, &nodes}, {drains, &flags}} {
			watcher, err := w.of.WatchAll(ctx)
			if err != nil {
				return fmt.Errorf("watch the registry: %w", err)
			}
			defer func() { _ = watcher.Stop() }()
			*w.to = watcher.Updates()
		}
	}
	r.resume(live)
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	misses := 0
	var pause <-chan time.Time // not nil after a renewal out of turn
	r.Renew()                  // at once
	for {
		changed := r.changed()
		change := false
		if pause != nil {
			changed = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
			return errReconnected
		case <-old:
			return errReconnected
		case e, ok := <-nodes:
			if !ok {
				return errors.New("the watch of the registry ended")
			}
			r.take(e)
			continue
		case e, ok := <-flags:
			if !ok {
				return errors.New("the watch of drains ended")
			}
			r.takeDrain(e)
			continue
		case <-anew:
			return errReconnected
		case <-pause:
			pause = nil
			continue
		case <-tick.C:
		case <-changed:
			change = true
		}
		began := time.Now()
		pauses, err := r.renewOrBeat(ctx, leases, change)
		if change {
			pause = time.After(min(pauses*time.Since(began), renewEvery))
		}
		if err != nil {
			if misses++; misses == 3 {
				return err
			}
			continue
		}
		misses = 0
	}
}

// renewOrBeat renews the lease, or reports a change by a beat. After that, no change is reported
// for pauses times as long as that took: purges may arrive by the hundred a second, at all edges.
func (r *Registry) renewOrBeat(ctx context.Context, leases jetstream.KeyValue, change bool) (pauses time.Duration,
	err error) {
	if change && r.beatAlone(ctx) || !change && r.beats() {
		return 1, nil
	}
	return renewPauses, r.renew(ctx, leases)
}

// live returns the nodes that are live by a watch.
func (r *Registry) live() map[string]bool {
	live := map[string]bool{}
	for _, l := range r.watched() {
		live[l.Node] = l.Live
	}
	return live
}

// resume records that a watch begins. It has no news of nodes that were live before, because there
// was no watch.
func (r *Registry) resume(live map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches++
	r.catching = true
	for name, s := range r.leases {
		if live[name] {
			s.at = time.Now()
		}
		s.Sure = false
		r.leases[name] = s
	}
}

// renew renews the lease. With a majority of the control nodes, that also shows that what is known
// of the others is up to date.
func (r *Registry) renew(ctx context.Context, leases jetstream.KeyValue) error {
	now := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if r.Self == nil {
		_, _, err := r.Client.position(ctx)
		if err == nil {
			r.touch(now)
		}
		return err
	}
	l := r.self(now)
	if err := r.put(ctx, leases, l); err != nil {
		return err
	}
	if r.Refused() {
		if _, _, err := r.Client.position(ctx); err != nil {
			return err
		}
	}
	r.touch(now)
	return nil
}

// touchedSince reports whether the registry was in touch at a time or later.
func (r *Registry) touchedSince(t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.touched.Before(t)
}

func (r *Registry) touch(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.touched) > LeaseTime/2 {
		r.since = now // others have LeaseTime from now to renew their leases
	}
	r.touched = now
}

// take applies an entry with a lease. news is false if it was known.
func (r *Registry) take(e jetstream.KeyValueEntry) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e == nil { // all present entries have arrived
		r.catching = false
		return false
	}
	if r.leases == nil {
		r.leases = map[string]seen{}
	}
	var l Lease
	switch {
	case isBeats(e):
		news = r.takeBeats(e)
	case e.Operation() != jetstream.KeyValuePut:
		delete(r.leases, e.Key())
		news = true
	case json.Unmarshal(e.Value(), &l) == nil && l.Node == e.Key():
		at := time.Now()
		old, ok := r.leases[e.Key()]
		news = !ok || !old.written.Equal(l.Renewed)
		if news { // otherwise a new watch delivers it again, and its node gave no sign of life
			old = old.next(l, at)
		}
		old.watch = r.watches
		r.leases[e.Key()] = old
	}
	r.notify()
	return news
}

// notify wakes all listeners. The caller holds r.mu.
func (r *Registry) notify() {
	for _, w := range r.watchers {
		select {
		case w <- struct{}{}:
		default: // it has been woken already
		}
	}
}

func (r *Registry) takeDrain(e jetstream.KeyValueEntry) {
	if e == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drains == nil {
		r.drains = map[string]bool{}
	}
	if e.Operation() == jetstream.KeyValuePut && string(e.Value()) == "true" {
		r.drains[e.Key()] = true
	} else {
		delete(r.drains, e.Key())
	}
}

// Nodes returns the leases of all nodes, by name. While the control plane can't be reached, nodes
// that were live stay live. With OnDemand, the call may take queryTimeout.
func (r *Registry) Nodes() []Lease {
	if r.queriesRoster() {
		return r.rosterLeases()
	}
	return r.watched()
}

// watched returns the leases that the watch has delivered.
func (r *Registry) watched() []Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if !r.touched.IsZero() && now.Sub(r.touched) > LeaseTime/2 {
		now = r.touched
	}
	names := slices.Sorted(maps.Keys(r.leases))
	out := make([]Lease, len(names))
	for i, name := range names {
		s := r.leases[name]
		s.Draining = r.drains[name]
		last := s.at
		if r.since.After(last) && r.since.Sub(last) < frozen {
			last = r.since
		}
		s.Live = now.Sub(last) < LeaseTime
		s.Sure = s.Sure && now.Sub(s.back) >= LeaseTime
		out[i] = s.Lease
	}
	return out
}

// Draining reports whether a node is marked as draining.
func (r *Registry) Draining(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drains[node] || r.view.leases[node].Draining
}

// Drain sets or removes the drain mark of a node, durably.
func (c *Client) Drain(ctx context.Context, node string, drain bool) error {
	defer c.hold()()
	_, _, drains, err := c.ready(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if strings.ContainsAny(node, " .*>") || node == "" {
		return fmt.Errorf("%q is not the name of a node", node)
	}
	value := "false"
	if drain {
		value = "true"
	}
	if _, err := drains.Put(ctx, node, []byte(value)); err != nil {
		return refusal(err)
	}
	return nil
}
