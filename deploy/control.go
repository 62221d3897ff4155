package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Members are the nodes that form the control plane.
type Members struct {
	Names   []string
	Grouped bool // the control plane is a cluster, not a single node that was always alone
}

// ControlPlan is the planned change of the control plane. The log of purges survives as long as a
// majority of the members is up at each step. So members are restarted one after the other, then
// new members join, then old ones are removed.
type ControlPlan struct {
	From    []string `json:"from"`              // current members
	To      []string `json:"to"`                // control nodes of the fleet file
	Removes []string `json:"removes,omitempty"` // members to remove
	// Why the log is lost and all stored responses become stale; "" if it is kept.
	Loses string `json:"loses,omitempty"`

	convertsLog bool // the log of a single node is copied into a cluster
}

// planControl asks the nodes for the members of the control plane. It returns nil if no node knows
// them, as before the first deploy or without a quorum.
func (d *Deploy) planControl(ctx context.Context, plans []*NodePlan) (*ControlPlan, error) {
	p := &ControlPlan{}
	for i := range d.Nodes {
		if d.Nodes[i].Phase == Control {
			p.To = append(p.To, d.Nodes[i].Name)
		}
	}
	if len(p.To) == 0 {
		return nil, nil
	}
	var control, rest []*NodePlan
	for _, n := range plans {
		switch {
		case !n.state.active:
		case n.node.Phase == Control:
			control = append(control, n)
		default: // may have been a control node
			rest = append(rest, n)
		}
	}
	members, err := d.members(ctx, control)
	if err == nil && members == nil {
		members, err = d.members(ctx, rest)
	}
	if err != nil || members == nil {
		return nil, err
	}
	slices.Sort(p.To)
	p.From = members.Names
	kept := 0
	for _, n := range p.From {
		if slices.Contains(p.To, n) {
			kept++
		} else {
			p.Removes = append(p.Removes, n)
		}
	}
	p.convertsLog = !members.Grouped && kept > 0 && len(p.To) > 1
	if kept == 0 {
		p.Removes = nil
		p.Loses = fmt.Sprintf("none of the control nodes in the fleet file has the log: to keep it, first deploy with %s and the new control nodes together, and delete the old ones later", strings.Join(p.From, ", "))
	} else if old := outdatedEdges(plans); p.convertsLog && len(old) > 0 {
		p.Loses = fmt.Sprintf("edges with an earlier version (%s) would treat the log as a new one when the control nodes change: to avoid that, first deploy the new version, and change the control nodes later", strings.Join(old, ", "))
	}
	return p, nil
}

// outdatedEdges returns the edges that run another version than the deploy installs.
func outdatedEdges(plans []*NodePlan) []string {
	var out []string
	for _, n := range plans {
		if n.node.Edge && n.state.running != "" && n.state.running != n.Version {
			out = append(out, n.Node)
		}
	}
	return out
}

// members asks the nodes for the members of the control plane. It returns nil if no node knows
// them.
func (d *Deploy) members(ctx context.Context, plans []*NodePlan) (*Members, error) {
	answers, errs := make([]*Members, len(plans)), make([]error, len(plans))
	forEach(plans, func(i int, n *NodePlan) {
		c, err := d.conn(ctx, n.node)
		if err != nil {
			errs[i] = err
			return
		}
		defer d.startProgress(n.Node, "asking who the control nodes are").stop()
		m, err := d.Fleet.Members(ctx, n.Node, c.DialContext)
		if err == nil {
			answers[i] = &m
		} else if !errors.Is(err, ErrNoControl) {
			d.logf("%s: can't list the control nodes: %v", n.Node, err)
		}
	})
	var out *Members
	by := ""
	for i, m := range answers {
		switch {
		case m == nil:
		case out == nil:
			out, by = m, plans[i].Node
		case !slices.Equal(out.Names, m.Names):
			return nil, fmt.Errorf("there are two control planes: %s reports the control nodes %s, %s reports %s; stop one of the control planes, and move its data aside",
				by, strings.Join(out.Names, ", "), plans[i].Node, strings.Join(m.Names, ", "))
		}
	}
	return out, errors.Join(errs...)
}

// write writes the plan as text for the operator, if the control plane changes.
func (p *ControlPlan) write(b *strings.Builder) {
	if slices.Equal(p.From, p.To) {
		return
	}
	fmt.Fprintf(b, "control plane: %s -> %s\n", strings.Join(p.From, ", "), strings.Join(p.To, ", "))
	if p.Loses != "" {
		fmt.Fprintf(b, "  the log of purges will be lost, so edges will mark everything in their caches as stale:\n    %s\n", p.Loses)
	} else {
		b.WriteString("  the log of purges is kept\n")
	}
	if p.convertsLog {
		b.WriteString("  purges wait for some seconds while it is converted\n")
	}
	for _, n := range p.Removes {
		fmt.Fprintf(b, "  remove %s from the control plane, once the others have all of its data\n", n)
	}
}

// order sorts control nodes: first members that are down, because the others need them for a
// quorum, then other members, then new nodes.
func (p *ControlPlan) order(nodes []*NodePlan) {
	if p == nil {
		return
	}
	turn := func(n *NodePlan) int {
		switch member := slices.Contains(p.From, n.Node); {
		case member && !n.state.active:
			return 0
		case member:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(nodes, func(a, b *NodePlan) int { return turn(a) - turn(b) })
}

// removeMembers removes the members that are not in the fleet file from the control plane.
func (d *Deploy) removeMembers(ctx context.Context, p *ControlPlan) error {
	if p == nil || len(p.Removes) == 0 {
		return nil
	}
	i := slices.IndexFunc(d.Nodes,
		func(n Node) bool { return slices.Contains(p.From, n.Name) && slices.Contains(p.To, n.Name) })
	by := &d.Nodes[i] // another member that can remove it, or nothing to remove
	c, err := d.conn(ctx, by)
	if err != nil {
		return err
	}
	for _, name := range p.Removes {
		if err := d.removeMember(ctx, by.Name, c, name); err != nil {
			return err
		}
		d.logf("%s: removed from the control plane", name)
	}
	return nil
}

func (d *Deploy) removeMember(ctx context.Context, by string, c *Conn, name string) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.Limit, 2*time.Minute))
	defer cancel()
	defer d.startProgress(name, "taken out of the control plane").stop()
	return d.Fleet.Remove(ctx, by, c.DialContext, name)
}
