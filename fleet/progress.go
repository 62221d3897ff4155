package fleet

import (
	"context"
	"slices"
	"time"
)

// Progress is how far an edge is with a purge.
type Progress struct {
	Node    string        `json:"node"`
	Applied bool          `json:"applied"`
	Live    bool          `json:"live"`
	Took    time.Duration `json:"took_ns,omitempty"` // since the wait began
}

// Progress tells how far each edge is with the purge of a sequence of the log that there is now.
func (r *Registry) Progress(ctx context.Context, seq uint64) []Progress {
	return r.progress(ctx, seq, time.Now())
}

// logEnd is the end of the log as it was at a time or later. All who wait for purges together ask
// for it once a second: there may be many of them, and each lease that comes has all of them look.
func (r *Registry) logEnd(ctx context.Context, since time.Time) (Position, error) {
	r.asking.Lock()
	defer r.asking.Unlock()
	if r.asked.Before(since) || time.Since(r.asked) > time.Second {
		r.asked = time.Now()
		r.end, _, r.endErr = r.Client.position(ctx)
	}
	return r.end, r.endErr
}

// progress is Progress by what the log was at a time or later.
func (r *Registry) progress(ctx context.Context, seq uint64, since time.Time) []Progress {
	last, err := r.logEnd(ctx, since)
	known, newer := r.edges(last)
	if err == nil && newer {
		// What an edge says was true before it came here, so that an end that is asked for now has
		// it.
		last, err = r.logEnd(ctx, time.Now())
	}
	var out []Progress
	for _, name := range slices.Sorted(slices.Values(r.Edges)) {
		l := known[name]
		out = append(out, Progress{Node: name, Live: l.Live, Applied: err == nil && l.hasApplied(seq, last)})
	}
	return out
}

// edges are the leases of edges, by name. newer says that one of them has applied more of the log
// than its end was.
func (r *Registry) edges(last Position) (known map[string]Lease, newer bool) {
	known = map[string]Lease{}
	for _, l := range r.Nodes() {
		if slices.Contains(l.Roles, RoleEdge) {
			known[l.Node] = l
			newer = newer || l.Applied.Log == last.Log && l.Applied.Seq > last.Seq
		}
	}
	return known, newer
}

// hasApplied reports whether an edge has applied a purge of the log that ends at last. A lease that
// is not heard of any more says nothing: the edge may be with another fleet, or a part of the log
// that it had applied may be lost.
func (l Lease) hasApplied(seq uint64, last Position) bool {
	at := l.Applied
	return l.Live && l.Sure && !l.Unproven && at.Log == last.Log && at.Seq >= seq &&
		(at.Seq < last.Seq || at.Seq == last.Seq && !differ(at.Mark, last.Mark))
}

// listen gives what tells that a lease has changed since it was looked at last.
func (r *Registry) listen() (news <-chan struct{}, stop func()) {
	w := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers = append(r.watchers, w)
	if len(r.watchers) == 1 && r.OnDemand {
		r.demand.begin(r)
	}
	return w, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.watchers = slices.DeleteFunc(r.watchers, func(other chan struct{}) bool { return other == w })
		if len(r.watchers) == 0 && r.OnDemand {
			r.demand.end()
		}
	}
}

// Wait waits until every edge of the fleet has applied the purge of a sequence, or ctx ends, which
// is no error: each that has not is told of as such. One that was not heard of may be cut off and
// serve, so that it is waited for too.
func (r *Registry) Wait(ctx context.Context, seq uint64) []Progress {
	news, stop := r.listen()
	defer stop()
	began := time.Now()
	took := map[string]time.Duration{}
	for {
		all := r.progress(ctx, seq, began)
		waits := false
		for i := range all {
			p := &all[i]
			if p.Applied && took[p.Node] == 0 {
				took[p.Node] = time.Since(began)
			}
			p.Took = took[p.Node]
			waits = waits || !p.Applied
		}
		if !waits {
			return all
		}
		select {
		case <-news:
		case <-time.After(time.Second): // a lease may end meanwhile
		case <-ctx.Done():
			return all
		}
	}
}
