package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/geodns"
	"github.com/kaiku-cdn/kaiku/storage"
)

// plane stands for the control plane of a fleet: it is the log of purges, the drains and the
// reports of the demo's nodes.
type plane struct {
	demo    *demo
	began   time.Time
	history admin.History

	mu       sync.Mutex
	purges   []purge.Request
	draining map[string]bool
}

// nameServer is the name of the demo's name server on the page.
const nameServer = "ns1"

// Append purges on all edges that run. Those that don't do it when they start.
func (p *plane) Append(_ context.Context, _ string, r purge.Request) (uint64, error) {
	p.mu.Lock()
	p.purges = append(p.purges, r)
	seq := uint64(len(p.purges))
	p.mu.Unlock()
	var errs error
	for _, n := range p.demo.nodes {
		if e := n.running(); e != nil {
			errs = errors.Join(errs, p.catchUp(e))
		}
	}
	return seq, errs
}

// catchUp applies the purges to an edge that it has not applied.
func (p *plane) catchUp(e *node.Edge) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := min(e.Store.Position().Seq, uint64(len(p.purges)))
	var missed []purge.Logged
	for _, r := range p.purges[from:] {
		missed = append(missed, purge.Logged{Request: r})
	}
	if len(missed) == 0 {
		return nil
	}
	return e.Apply(missed, storage.Position{Log: 1, Seq: uint64(len(p.purges))})
}

// InTouch returns true: nothing lies between an edge and the log.
func (p *plane) InTouch() bool { return true }

// CutOff returns false.
func (p *plane) CutOff() bool { return false }

// Progress returns which edges have applied a purge.
func (p *plane) Progress(_ context.Context, seq uint64, _ bool) []purge.Progress {
	var out []purge.Progress
	for _, name := range p.edges() {
		at := purge.Progress{Node: name}
		if e := p.demo.nodes[name].running(); e != nil {
			at.Live, at.Applied = true, e.Store.Position().Seq >= seq
		}
		out = append(out, at)
	}
	return out
}

// edges returns the names of the edges.
func (p *plane) edges() []string { return p.demo.fleet.NodeNames() }

// Nodes returns the state of the edges and of the name server.
func (p *plane) Nodes() []admin.NodeStatus {
	out := []admin.NodeStatus{{Node: nameServer, Roles: []string{"geodns"}, Version: node.Version(), Live: true,
		Ready:   true,
		Started: p.began}}
	reported := p.reported()
	for _, name := range p.edges() {
		n := p.demo.nodes[name]
		st := admin.NodeStatus{Node: name, Roles: []string{"edge"}, Version: node.Version(), Address: n.Address,
			Draining: reported[name].Draining, Started: p.began}
		if e := n.running(); e != nil {
			st.Live, st.Ready, st.Purges = true, true, e.Store.Position().Seq
		}
		out = append(out, st)
	}
	return out
}

// Names returns the names of the edges and of the name server.
func (p *plane) Names() []string { return append(slices.Clone(p.edges()), nameServer) }

// Drain drains an edge, or undrains it.
func (p *plane) Drain(_ context.Context, name string, drain bool) error {
	if name == nameServer {
		return fmt.Errorf("%s is not an edge", name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining[name] = drain
	return nil
}

// Reports returns the reports of the edges that run, and that of the name server.
func (p *plane) Reports(_ context.Context, since int64) ([]admin.Reported, []admin.Point, error) {
	return p.reports(), p.history.Since(since), nil
}

func (p *plane) reports() []admin.Reported {
	var out []admin.Reported
	for _, name := range p.edges() {
		if e := p.demo.nodes[name].running(); e != nil {
			out = append(out, admin.Reported{Node: name, Report: e.Reporter.Last()})
		}
	}
	names := admin.Reporter{Served: p.demo.dns.Served, Down: func() []string { return node.Unhealthy(p.demo.dns) }}
	return append(out, admin.Reported{Node: nameServer, Report: names.Measure()})
}

// Location returns the place of an edge.
func (p *plane) Location(name string) *[2]float64 {
	n := p.demo.nodes[name]
	if n == nil {
		return nil
	}
	return &[2]float64{n.place.Lat, n.place.Lon}
}

// NameServers returns nothing, because every page of the demo can ask the name server.
func (p *plane) NameServers() []string { return nil }

// reported returns what the name server knows of the edges besides its own probes.
func (p *plane) reported() map[string]geodns.Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]geodns.Report{}
	for _, name := range p.edges() {
		out[name] = geodns.Report{Draining: p.draining[name]}
	}
	return out
}

// remember adds to the history until ctx ends.
func (p *plane) remember(ctx context.Context) error {
	tick := time.NewTicker(admin.HistoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			p.history.Add(now, p.reports())
		}
	}
}

// visitEvery is how often each visitor gets a picture.
const visitEvery = 2 * time.Second

// visitors get a picture again and again, as a client in Finland and as one in the US, until ctx
// ends. So there is something to see on the page.
func (d *demo) visitors(ctx context.Context) error {
	tick := time.NewTicker(visitEvery)
	defer tick.Stop()
	for {
		for _, v := range theVisitors() {
			if err := d.look(ctx, v); err != nil && ctx.Err() == nil {
				d.log.Debug("a visitor of the demo", "country", v.country, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
