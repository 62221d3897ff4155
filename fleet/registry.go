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

// Lease is what a node says of itself, every renewEvery.
type Lease struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Roles   []string  `json:"roles"`
	Region  string    `json:"region,omitempty"`
	Address string    `json:"address,omitempty"` // the first of its public ones
	Load    float64   `json:"load"`              // 0 to 1, of its capacity
	Secure  bool      `json:"secure,omitempty"`  // of an edge: it has certificates for all its hosts
	Ready   bool      `json:"ready"`             // it serves, and trusts what it has
	Applied Position  `json:"applied"`           // purges; of an edge
	Started time.Time `json:"started"`
	// Process is random, and another one each time that the node starts.
	Process string `json:"process,omitempty"`
	// Sites tells the sites of an edge's fleet file, and their hosts, from those of others.
	Sites string `json:"sites,omitempty"`
	// Unproven says that Applied is not known to be of the log that there is, see Follower.Proven.
	Unproven bool `json:"unproven,omitempty"`
	// Disk is how the disk of a control node is: "" is well, else DiskScarce or DiskFull.
	Disk string `json:"disk,omitempty"`
	// Challenges is up to where a name server answers with what Challenges publishes: its
	// ChallengeFollower's Applied.
	Challenges Position  `json:"challenges,omitzero"`
	Renewed    time.Time `json:"renewed"` // by the node's own clock
	// Beats says that the node counts beats, as versions before them don't.
	Beats    bool `json:"beats,omitempty"`
	Draining bool `json:"draining"`
	Live     bool `json:"live"` // heard of within LeaseTime; as the reader has it
	// Sure says that the lease was seen to be renewed, and by one process alone: what it says of
	// Applied counts; as the reader has it.
	Sure bool `json:"sure,omitempty"`
}

// Registry keeps the node's own lease, and knows those of the others. Its fields are set before
// Serve.
type Registry struct {
	Client *Client
	// Self makes the node's lease as it is now, but for Draining, Live and Renewed; nil means that
	// it only watches.
	Self func() Lease
	// Edges are those that the fleet has, whether they were heard of or not.
	Edges []string
	// MaxDisconnected is how long an edge of this name on another machine may trust what it has
	// after it was heard of; 0 is a minute.
	MaxDisconnected time.Duration

	process  string      // of this process
	revision uint64      // of the lease as it was written last; 0 is unknown
	own      []time.Time // Renewed of leases that were written
	twin     twin
	refused  atomic.Bool

	// OnDemand is for nodes that rarely want to know of others, as edges: the control plane is
	// asked when they do, and while somebody waits. Others are told of each lease that is renewed.
	OnDemand bool

	demand   demand
	saying   sync.Mutex // held while Self is called
	calm     calm
	mu       sync.Mutex
	leases   map[string]seen
	drains   map[string]bool
	touched  time.Time // when the registry was last in touch
	since    time.Time // when it came in touch after it had not been
	watchers []chan struct{}
	news     chan struct{} // of the node itself; made with mu held
	watches  uint64        // how many began
	catching bool          // what was there as the watch began has not come yet

	asking sync.Mutex // held while the control plane is asked for the end of the log; guards what follows
	asked  time.Time
	end    Position
	endErr error
}

// frozen is how old a lease may be that counts as live when the registry is back in touch: the
// control plane can't have been away for longer without anybody's looking at it.
const frozen = time.Hour

// seen is a lease and when it came.
type seen struct {
	Lease
	at      time.Time
	written time.Time // Renewed as the lease itself has it
	n       uint64    // of the last beat
	watch   uint64    // by which the lease itself came
	// before is the process that had the node's name before the one that has it now, and back is
	// when that was last one that had had it before.
	before string
	back   time.Time
}

// next is what is known after another lease of the node.
func (s seen) next(l Lease, at time.Time) seen {
	n := seen{Lease: l, at: at, written: l.Renewed, before: s.before, back: s.back}
	n.Sure = !s.Renewed.IsZero() // or it may be one that nobody renews
	if l.Process != s.Process {
		if l.Process == s.before && l.Process != "" {
			n.back = at
		}
		n.before = s.Process
	}
	return n
}

// Serve keeps the lease and watches until ctx ends, which takes the lease back.
func (r *Registry) Serve(ctx context.Context) error {
	r.Client.registry.Store(r)
	out := outage{log: r.Client.Log, what: "registry: out of touch; what was known of other nodes stays"}
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
			continue // others see no gap
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	if _, leases, _, err := r.Client.ready(context.WithoutCancel(ctx)); err == nil && r.Self != nil && !r.Refused() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = leases.Delete(end, r.Client.Node) // it would end by itself
	}
	return nil
}

// Renew says that the lease has changed, so that others learn of it before the next second.
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

// watch renews and watches until something fails.
func (r *Registry) watch(ctx context.Context) error {
	anew, live := r.Client.connected(), r.live()
	r.hasWritten(Lease{})
	_, leases, drains, err := r.Client.ready(ctx)
	if err != nil {
		return err
	}
	_ = r.renew(ctx, leases) // before the round trips of watches; it is done again
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
		pauses, err := r.say(ctx, leases, change)
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

// say says that the node is there, or that something has changed. pauses is how many times as long
// as that took no change is to be told: purges may come by the hundred a second, to all edges.
func (r *Registry) say(ctx context.Context, leases jetstream.KeyValue, change bool) (pauses time.Duration, err error) {
	if change && r.beatAlone(ctx) || !change && r.beats() {
		return 1, nil
	}
	return renewPauses, r.renew(ctx, leases)
}

// live are the nodes of which it was heard by a watch.
func (r *Registry) live() map[string]bool {
	live := map[string]bool{}
	for _, l := range r.watched() {
		live[l.Node] = l.Live
	}
	return live
}

// resume notes that a watch begins. Nothing was heard of nodes while there was none, neither of
// those that were live then.
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

// renew says that the node is there. With a majority of the control nodes behind it, that also says
// that what is known of the others is new.
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

// touchedSince reports whether the registry was in touch at a time or after it.
func (r *Registry) touchedSince(t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.touched.Before(t)
}

func (r *Registry) touch(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.touched) > LeaseTime/2 {
		r.since = now // others have until LeaseTime after this to be heard of again
	}
	r.touched = now
}

// take notes the lease of a node. news is false if it was known.
func (r *Registry) take(e jetstream.KeyValueEntry) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e == nil { // all that was there has come
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
		if news { // else a watch that begins anew gives it: its node was not heard of again
			old = old.next(l, at)
		}
		old.watch = r.watches
		r.leases[e.Key()] = old
	}
	r.tell()
	return news
}

// tell has those look who wait for news. r.mu is held.
func (r *Registry) tell() {
	for _, w := range r.watchers {
		select {
		case w <- struct{}{}:
		default: // it has news to look at already
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

// Nodes returns what is known of the nodes, by name. A control plane that can't be reached freezes
// it: who was live stays so. With OnDemand it may take as long as askTime.
func (r *Registry) Nodes() []Lease {
	if r.asks() {
		return r.demanded()
	}
	return r.watched()
}

// watched is what is known of the nodes by a watch.
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

// Draining says whether a node is marked to get no new clients.
func (r *Registry) Draining(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drains[node] || r.demand.leases[node].Draining
}

// Drain marks a node, durably, or takes the mark back.
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
