package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what is where after a deploy.
type Report struct {
	Nodes []NodeReport `json:"nodes"`
	Sites []SiteAnswer `json:"sites,omitempty"` // through each edge, at the end
}

// NodeReport is what became of a node.
type NodeReport struct {
	Node    string `json:"node"`
	Outcome string `json:"outcome"` // unchanged, done, put back, untouched or unknown
	Version string `json:"version,omitempty"`
	Note    string `json:"note,omitempty"`
}

// WriteTo writes the report as a table.
func (r *Report) WriteTo(out io.Writer) (int64, error) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "node\toutcome\tversion\t")
	for _, n := range r.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Node, n.Outcome, first(n.Version, "-"), n.Note)
	}
	if len(r.Sites) > 0 {
		fmt.Fprintln(w, "\nsite\tnode\tanswer\tcache\t")
	}
	for _, a := range r.Sites {
		status := "none"
		if a.Status != 0 {
			status = fmt.Sprint(a.Status)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", a.Site, a.Node, status, first(a.Cache, "-"), strings.Join(slices.DeleteFunc([]string{a.URL, a.Error, a.Note}, func(s string) bool { return s == "" }), ": "))
	}
	_ = w.Flush() // to memory
	n, err := io.WriteString(out, b.String())
	return int64(n), err
}

// groups are the nodes that have something to be done, in the order of their turns. Those of a
// group have theirs at the same time.
func (d *Deploy) groups(p *Plan, quorumless bool) [][]*NodePlan {
	var out [][]*NodePlan
	var phases [3][]*NodePlan
	for _, n := range p.Nodes {
		if !n.Nothing() {
			phases[n.node.Phase] = append(phases[n.node.Phase], n)
		}
	}
	p.Control.order(phases[Control])
	if quorumless && len(phases[Control]) > 0 {
		out = append(out, phases[Control]) // each waits for the others, which then are its quorum
		phases[Control] = nil
	}
	for _, list := range phases[:Edge] {
		for _, n := range list {
			out = append(out, []*NodePlan{n})
		}
	}
	return append(out, d.batches(phases[Edge])...)
}

// noQuorum reports whether too few control nodes run as that there is something to protect.
func (d *Deploy) noQuorum(ctx context.Context, p *Plan) bool {
	all, down := 0, 0
	for i := range d.Nodes {
		if d.Nodes[i].Phase == Control {
			all++
		}
	}
	for _, n := range p.Nodes {
		if n.node.Phase != Control {
			continue
		}
		if !n.state.active {
			down++
		} else if c, err := d.conn(ctx, n.node); err == nil && errors.Is(d.Fleet.Spare(ctx, n.Node, c.DialContext), ErrNoControl) {
			down++
		}
	}
	return all > 0 && all-down < all/2+1
}

// batches puts edges together: at most so many, never all edges, and never all of a region that has
// several.
func (d *Deploy) batches(edges []*NodePlan) [][]*NodePlan {
	all, regions := 0, map[string]int{}
	for i := range d.Nodes {
		if n := &d.Nodes[i]; n.Edge {
			all++
			regions[n.Region]++
		}
	}
	size := max(1, min(all*first(d.Batch, 25)/100, all-1))
	var out [][]*NodePlan
	for len(edges) > 0 {
		var batch, rest []*NodePlan
		in := map[string]int{}
		for _, n := range edges {
			region := n.node.Region
			if len(batch) < size && (region == "" || in[region] < max(1, regions[region]-1)) {
				batch = append(batch, n)
				in[region]++
			} else {
				rest = append(rest, n)
			}
		}
		out, edges = append(out, batch), rest
	}
	return out
}

// errStopped says that a rollout ended before its end.
var errStopped = errors.New("the rollout stopped")

// Apply does what the plan says. The report is whole in any case. When ctx ends, the nodes that are
// being changed come to their end, those that are drained for it get their clients back, and no
// other begins.
func (d *Deploy) Apply(ctx context.Context, p *Plan) (*Report, error) {
	report := &Report{}
	at := map[string]*NodeReport{}
	report.Nodes = make([]NodeReport, len(p.Nodes))
	var work []*NodePlan
	for i, n := range p.Nodes {
		report.Nodes[i] = NodeReport{Node: n.Node, Outcome: "unchanged", Version: n.From}
		at[n.Node] = &report.Nodes[i]
		if !n.Nothing() {
			report.Nodes[i].Outcome = "untouched"
			work = append(work, n)
		}
	}
	if err := d.prepare(ctx, work); err != nil {
		return report, err
	}
	groups := d.groups(p, p.Control == nil && d.noQuorum(ctx, p))
	removed := false
	for i, group := range groups {
		err := ctx.Err()
		if err == nil && !removed && group[0].node.Phase != Control { // before others are restarted that may have been members
			err = d.removeMembers(ctx, p.Control)
			removed = err == nil
		}
		if err == nil {
			err = d.group(ctx, group, at)
		}
		if err != nil {
			var left []*NodePlan
			for _, g := range groups[i:] {
				for _, n := range g {
					if at[n.Node].Outcome == "untouched" {
						left = append(left, n)
					}
				}
			}
			d.clear(ctx, left)
			return report, fmt.Errorf("%w: %w", errStopped, err)
		}
	}
	if !removed {
		if err := d.removeMembers(ctx, p.Control); err != nil {
			return report, fmt.Errorf("%w: %w", errStopped, err)
		}
	}
	return report, d.finally(ctx, p, report)
}

// group does nodes whose turn it is.
func (d *Deploy) group(ctx context.Context, group []*NodePlan, at map[string]*NodeReport) error {
	if err := d.spare(ctx, group); err != nil {
		return err
	}
	each(group, func(_ int, p *NodePlan) { d.before(ctx, p) })
	drained, err := d.drain(ctx, group)
	if err == nil && len(drained) > 0 {
		err = d.settle(ctx, strings.Join(names(drained), ", "))
	}
	// From here on what was begun is finished, or put back.
	hold := context.WithoutCancel(ctx)
	if err != nil {
		return errors.Join(err, d.undrain(hold, drained))
	}
	errs := make([]error, len(group))
	each(group, func(i int, p *NodePlan) { errs[i] = d.change(hold, p, at[p.Node]) })
	var serving []*NodePlan
	for _, p := range drained {
		if at[p.Node].Outcome == "unknown" {
			at[p.Node].Note += "; it stays drained: kaiku undrain " + p.Node
		} else {
			serving = append(serving, p)
		}
	}
	return errors.Join(errors.Join(errs...), d.undrain(hold, serving))
}

// settle waits until resolvers send no clients any more to nodes that were drained.
func (d *Deploy) settle(ctx context.Context, nodes string) error {
	d.say("%s: waiting %v for resolvers to forget it", nodes, d.Settle)
	w := d.waits(nodes, "waiting for resolvers, %v in all", d.Settle)
	defer w.end()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d.Settle):
		return nil
	}
}

// spare makes sure that the control plane goes on without the node whose turn it is.
func (d *Deploy) spare(ctx context.Context, group []*NodePlan) error {
	if len(group) != 1 || group[0].node.Phase != Control || group[0].Process != "restart" {
		return nil
	}
	c, err := d.conn(ctx, group[0].node)
	if err != nil {
		return err
	}
	defer d.waits(group[0].Node, "asking the control plane whether it goes on without it").end()
	// A node that becomes a control node runs no part of it yet.
	if err := d.Fleet.Spare(ctx, group[0].Node, c.DialContext); err != nil && !errors.Is(err, ErrNoControl) {
		return fmt.Errorf("node %s was not changed, because the control plane needs it: %w", group[0].Node, err)
	}
	return nil
}

// drain takes the clients of edges that will be restarted; what it returns is to be undrained, also
// when it fails.
func (d *Deploy) drain(ctx context.Context, group []*NodePlan) (drained []*NodePlan, err error) {
	if len(group) > 1 && group[0].node.Phase == Control {
		return nil, nil // there is no control plane to tell name servers by
	}
	for _, p := range group {
		if !p.node.Edge || !p.state.active || p.Process != "restart" {
			continue
		}
		c, err := d.conn(ctx, p.node)
		if err != nil {
			return drained, err
		}
		changed, err := d.Fleet.Drain(ctx, p.Node, c.DialContext, true)
		switch {
		case errors.Is(err, ErrNoDrain):
			d.say("%s: not drained: %v", p.Node, err)
		case errors.Is(err, ErrRefused):
			return drained, fmt.Errorf("drain %s: %w", p.Node, err)
		case err != nil:
			// It may be marked all the same, if the answer was lost.
			return append(drained, p), fmt.Errorf("drain %s: %w", p.Node, err)
		case !changed:
			d.say("%s: was drained already and stays so", p.Node)
		default:
			d.say("%s: drained", p.Node)
			drained = append(drained, p)
		}
	}
	return drained, nil
}

// undrain gives edges their clients back.
func (d *Deploy) undrain(ctx context.Context, list []*NodePlan) error {
	errs := make([]error, len(list))
	each(list, func(i int, p *NodePlan) {
		if err := d.undrainNode(ctx, p); err != nil {
			errs[i] = fmt.Errorf("undrain %s: %w; it serves, but may get no clients until kaiku undrain %s", p.Node, err, p.Node)
			return
		}
		d.say("%s: undrained", p.Node)
	})
	return errors.Join(errs...)
}

// undrainNode tries until the limit: the control plane may be electing.
func (d *Deploy) undrainNode(ctx context.Context, p *NodePlan) error {
	ctx, cancel := context.WithTimeout(ctx, first(d.Limit, 2*time.Minute))
	defer cancel()
	w := d.waits(p.Node, "taking back its drain")
	defer w.end()
	for {
		c, err := d.conn(ctx, p.node)
		if err == nil {
			_, err = d.Fleet.Drain(ctx, p.Node, c.DialContext, false)
		}
		if err == nil || errors.Is(err, ErrNoDrain) {
			return nil
		}
		if errors.Is(err, ErrRefused) {
			return err
		}
		w.now("taking back its drain: %v", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(first(d.Every, time.Second)):
		}
	}
}

// change changes one node, or puts back what it had.
func (d *Deploy) change(ctx context.Context, p *NodePlan, report *NodeReport) error {
	c, err := d.conn(ctx, p.node)
	if err != nil {
		return err
	}
	d.say("%s: %s", p.Node, doing(p.Process))
	report.Outcome, report.Note = "unknown", "the connection was lost while it was changed: run the deploy again"
	err = d.activate(ctx, c, p)
	if err == nil {
		err = d.healthy(ctx, c, p.Node, p.Version, p.fleetSum())
	}
	if err == nil {
		err = d.asBefore(ctx, p)
	}
	if err == nil {
		if _, err := c.Run(ctx, script("done"), nil, nil); err != nil {
			return fmt.Errorf("node %s: clean up: %w", p.Node, err)
		}
		report.Outcome, report.Version, report.Note = "done", p.Version, ""
		d.say("%s: %sed and well with %s", p.Node, first(p.Process, "chang"), p.Version)
		return nil
	}
	why := fmt.Errorf("node %s: %w", p.Node, err)
	d.say("%v; putting back what it had", why)
	var sites *sitesError
	if log, _ := c.Run(ctx, script("log"), nil, nil); len(log) > 0 && !errors.As(err, &sites) {
		why = fmt.Errorf("%w; the end of its log:\n%s", why, strings.TrimSpace(string(log)))
	}
	w := d.waits(p.Node, "putting back what it had")
	_, err = c.Run(ctx, script("back"), []string{first(p.Process, "restart")}, nil)
	w.end()
	if err != nil {
		report.Note = "it failed, and so did putting back what it had"
		return errors.Join(why, fmt.Errorf("node %s: put back what it had: %w", p.Node, err))
	}
	report.Version, report.Outcome, report.Note = p.From, "put back", "the new version was not well"
	if p.From == "" {
		return why
	}
	if err := d.healthy(ctx, c, p.Node, p.From, p.state.fleetSum()); err != nil {
		report.Outcome, report.Note = "unknown", "it has what it had, and is not well with it"
		return errors.Join(why, fmt.Errorf("node %s, put back: %w", p.Node, err))
	}
	return d.blame(ctx, p, why)
}

func names(list []*NodePlan) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Node)
	}
	slices.Sort(out)
	return out
}
