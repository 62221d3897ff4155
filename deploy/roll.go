package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is the state of the nodes after a deploy.
type Report struct {
	Nodes []NodeReport `json:"nodes"`
	Sites []SiteAnswer `json:"sites,omitempty"` // through each edge, at the end
}

// NodeReport is the outcome for one node.
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
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Node, n.Outcome, cmp.Or(n.Version, "-"), n.Note)
	}
	if len(r.Sites) > 0 {
		fmt.Fprintln(w, "\nsite\tnode\tanswer\tcache\t")
	}
	for _, a := range r.Sites {
		status := "none"
		if a.Status != 0 {
			status = fmt.Sprint(a.Status)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", a.Site, a.Node, status, cmp.Or(a.Cache, "-"),
			strings.Join(slices.DeleteFunc([]string{a.URL, a.Error, a.Note}, func(s string) bool { return s == "" }),
				": "))
	}
	_ = w.Flush() // writes to memory
	n, err := io.WriteString(out, b.String())
	return int64(n), err
}

// groups returns the nodes to change, in order. The nodes of a group are changed at the same time.
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
		out = append(out, phases[Control]) // each node waits for the others, which form its quorum
		phases[Control] = nil
	}
	for _, list := range phases[:Edge] {
		for _, n := range list {
			out = append(out, []*NodePlan{n})
		}
	}
	return append(out, d.batches(phases[Edge])...)
}

// lacksQuorum reports whether so few control nodes run that there is no quorum to protect.
func (d *Deploy) lacksQuorum(ctx context.Context, p *Plan) bool {
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
		} else if c, err := d.conn(ctx, n.node); err == nil && errors.Is(d.Fleet.Spare(ctx, n.Node, c.DialContext),
			ErrNoControl) {
			down++
		}
	}
	return all > 0 && all-down < all/2+1
}

// batches divides edges into groups. A group has at most Batch percent of all edges, never all
// edges, and never all edges of a region that has several.
func (d *Deploy) batches(edges []*NodePlan) [][]*NodePlan {
	all, regions := 0, map[string]int{}
	for i := range d.Nodes {
		if n := &d.Nodes[i]; n.Edge {
			all++
			regions[n.Region]++
		}
	}
	size := max(1, min(all*cmp.Or(d.Batch, 25)/100, all-1))
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

// errStopped means that a rollout stopped before its end.
var errStopped = errors.New("the rollout stopped")

// Apply carries out the plan. It returns a complete report even if it fails. If ctx ends, Apply
// finishes the nodes that are being changed, undrains those that are drained, and changes no
// others.
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
	groups := d.groups(p, p.Control == nil && d.lacksQuorum(ctx, p))
	removed := false
	for i, group := range groups {
		err := ctx.Err()
		// Remove former members before they are restarted in their other roles.
		if err == nil && !removed && group[0].node.Phase != Control {
			err = d.removeMembers(ctx, p.Control)
			removed = err == nil
		}
		if err == nil {
			err = d.applyGroup(ctx, group, at)
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
			d.clearStaged(ctx, left)
			return report, fmt.Errorf("%w: %w", errStopped, err)
		}
	}
	if !removed {
		if err := d.removeMembers(ctx, p.Control); err != nil {
			return report, fmt.Errorf("%w: %w", errStopped, err)
		}
	}
	return report, d.finalCheck(ctx, p, report)
}

// applyGroup changes the nodes of one group.
func (d *Deploy) applyGroup(ctx context.Context, group []*NodePlan, at map[string]*NodeReport) error {
	if err := d.checkSpare(ctx, group); err != nil {
		return err
	}
	forEach(group, func(_ int, p *NodePlan) { d.recordSites(ctx, p) })
	drained, err := d.drain(ctx, group)
	if err == nil && len(drained) > 0 {
		err = d.settle(ctx, strings.Join(names(drained), ", "))
	}
	// From here on, changes are finished or undone even if ctx ends.
	hold := context.WithoutCancel(ctx)
	if err != nil {
		return errors.Join(err, d.undrain(hold, drained))
	}
	errs := make([]error, len(group))
	forEach(group, func(i int, p *NodePlan) { errs[i] = d.changeNode(hold, p, at[p.Node]) })
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

// settle waits until resolvers send no more clients to drained nodes.
func (d *Deploy) settle(ctx context.Context, nodes string) error {
	d.logf("%s: waiting %v until cached DNS answers have expired", nodes, d.Settle)
	w := d.startProgress(nodes, "waiting for resolvers, %v in all", d.Settle)
	defer w.stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d.Settle):
		return nil
	}
}

// checkSpare returns an error if the control plane would lose its quorum without the node to
// restart.
func (d *Deploy) checkSpare(ctx context.Context, group []*NodePlan) error {
	if len(group) != 1 || group[0].node.Phase != Control || group[0].Process != "restart" {
		return nil
	}
	c, err := d.conn(ctx, group[0].node)
	if err != nil {
		return err
	}
	defer d.startProgress(group[0].Node, "asking the control plane whether it goes on without it").stop()
	// A node that is becoming a control node is not part of the control plane yet.
	if err := d.Fleet.Spare(ctx, group[0].Node, c.DialContext); err != nil && !errors.Is(err, ErrNoControl) {
		return fmt.Errorf("node %s was not changed, because the control plane needs it now: %w", group[0].Node, err)
	}
	return nil
}

// drain drains the edges that will be restarted. The caller must undrain those that it returns,
// even after an error.
func (d *Deploy) drain(ctx context.Context, group []*NodePlan) (drained []*NodePlan, err error) {
	if len(group) > 1 && group[0].node.Phase == Control {
		return nil, nil // without a control plane, name servers can't be told
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
			d.logf("%s: not drained: %v", p.Node, err)
		case errors.Is(err, ErrRefused):
			return drained, fmt.Errorf("drain %s: %w", p.Node, err)
		case err != nil:
			// The node may be drained even though the response was lost.
			return append(drained, p), fmt.Errorf("drain %s: %w", p.Node, err)
		case !changed:
			d.logf("%s: was already drained, and stays drained", p.Node)
		default:
			d.logf("%s: drained", p.Node)
			drained = append(drained, p)
		}
	}
	return drained, nil
}

// undrain undrains edges.
func (d *Deploy) undrain(ctx context.Context, list []*NodePlan) error {
	errs := make([]error, len(list))
	forEach(list, func(i int, p *NodePlan) {
		if err := d.undrainNode(ctx, p); err != nil {
			errs[i] = fmt.Errorf("undrain %s: %w; it is running, but gets no clients until you run kaiku undrain %s", p.Node,
				err, p.Node)
			return
		}
		d.logf("%s: undrained", p.Node)
	})
	return errors.Join(errs...)
}

// undrainNode retries until Limit, as the control plane may be electing a leader.
func (d *Deploy) undrainNode(ctx context.Context, p *NodePlan) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.Limit, 2*time.Minute))
	defer cancel()
	w := d.startProgress(p.Node, "taking back its drain")
	defer w.stop()
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
		w.update("taking back its drain: %v", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(cmp.Or(d.Every, time.Second)):
		}
	}
}

// changeNode changes one node. If the node does not become healthy, it restores the previous
// version and files.
func (d *Deploy) changeNode(ctx context.Context, p *NodePlan, report *NodeReport) error {
	c, err := d.conn(ctx, p.node)
	if err != nil {
		return err
	}
	d.logf("%s: %s", p.Node, gerund(p.Process))
	report.Outcome, report.Note = "unknown", "the connection was lost while it was changed: run the deploy again"
	err = d.activate(ctx, c, p)
	if err == nil {
		err = d.waitHealthy(ctx, c, p.Node, p.Version, p.fleetSum())
	}
	if err == nil {
		err = d.checkNotWorse(ctx, p)
	}
	if err == nil {
		if _, err := c.Run(ctx, script("done"), nil, nil); err != nil {
			return fmt.Errorf("node %s: clean up: %w", p.Node, err)
		}
		report.Outcome, report.Version, report.Note = "done", p.Version, ""
		d.logf("%s: %sed and well with %s", p.Node, cmp.Or(p.Process, "chang"), p.Version)
		return nil
	}
	why := fmt.Errorf("node %s: %w", p.Node, err)
	d.logf("%v; restoring its previous version", why)
	var sites *sitesError
	if log, _ := c.Run(ctx, script("log"), nil, nil); len(log) > 0 && !errors.As(err, &sites) {
		why = fmt.Errorf("%w; the end of its log:\n%s", why, strings.TrimSpace(string(log)))
	}
	w := d.startProgress(p.Node, "putting back what it had")
	_, err = c.Run(ctx, script("back"), []string{cmp.Or(p.Process, "restart")}, nil)
	w.stop()
	if err != nil {
		report.Note = "it failed, and so did putting back what it had"
		return errors.Join(why, fmt.Errorf("node %s: restore its previous version: %w", p.Node, err))
	}
	report.Version, report.Outcome, report.Note = p.From, "put back", "the new version was not well"
	if p.From == "" {
		return why
	}
	if err := d.waitHealthy(ctx, c, p.Node, p.From, p.state.fleetSum()); err != nil {
		report.Outcome, report.Note = "unknown", "it has what it had, and is not well with it"
		return errors.Join(why, fmt.Errorf("node %s, with its previous version: %w", p.Node, err))
	}
	return d.attributeFailure(ctx, p, why)
}

func names(list []*NodePlan) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Node)
	}
	slices.Sort(out)
	return out
}
