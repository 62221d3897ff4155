package fleet

import (
	"context"
	"slices"
	"time"
)

// Progress says whether an edge has applied a purge.
type Progress struct {
	Node    string        `json:"node"`
	Applied bool          `json:"applied"`
	Live    bool          `json:"live"`
	Took    time.Duration `json:"took_ns,omitempty"` // since Wait began
}

// Progress returns for each edge whether it has applied the purge with a sequence of the present
// log.
func (r *Registry) Progress(ctx context.Context, seq uint64) []Progress {
	return r.progress(ctx, seq, time.Now())
}

// logEnd returns the end of the log as it was at since or later. All callers that wait for purges
// share one question a second: there may be many, and each change of a lease wakes all of them.
func (r *Registry) logEnd(ctx context.Context, since time.Time) (Position, error) {
	r.querying.Lock()
	defer r.querying.Unlock()
	if r.queriedAt.Before(since) || time.Since(r.queriedAt) > time.Second {
		r.queriedAt = time.Now()
		r.end, _, r.endErr = r.Client.position(ctx)
	}
	return r.end, r.endErr
}

// progress is Progress for the log as it was at since or later.
func (r *Registry) progress(ctx context.Context, seq uint64, since time.Time) []Progress {
	last, err := r.logEnd(ctx, since)
	known, newer := r.edges(last)
	if err == nil && newer {
		// The leases were true before they arrived here. So an end that is read now covers them.
		last, err = r.logEnd(ctx, time.Now())
	}
	var out []Progress
	for _, name := range slices.Sorted(slices.Values(r.Edges)) {
		l := known[name]
		out = append(out, Progress{Node: name, Live: l.Live, Applied: err == nil && l.hasApplied(seq, last)})
	}
	return out
}

// edges returns the leases of edges, by name. newer reports whether one of them has applied entries
// beyond last.
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
// isn't live proves nothing: the edge may have moved to another fleet, or the part of the log that
// it had applied may be lost.
func (l Lease) hasApplied(seq uint64, last Position) bool {
	at := l.Applied
	return l.Live && l.Sure && !l.Unproven && at.Log == last.Log && at.Seq >= seq &&
		(at.Seq < last.Seq || at.Seq == last.Seq && !differ(at.Mark, last.Mark))
}

// listen returns a channel that receives a value when a lease changes.
func (r *Registry) listen() (news <-chan struct{}, stop func()) {
	w := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers = append(r.watchers, w)
	if len(r.watchers) == 1 && r.OnDemand {
		r.view.startPolling(r)
	}
	return w, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.watchers = slices.DeleteFunc(r.watchers, func(other chan struct{}) bool { return other == w })
		if len(r.watchers) == 0 && r.OnDemand {
			r.view.stopPolling()
		}
	}
}

// Wait waits until every edge of the fleet has applied the purge with a sequence. If ctx ends
// earlier, it returns the progress so far, which is no error. It waits for edges without a lease,
// too: they may be cut off and serve.
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
		case <-time.After(time.Second): // a lease may expire meanwhile
		case <-ctx.Done():
			return all
		}
	}
}
