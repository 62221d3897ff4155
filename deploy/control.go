package deploy

import (
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
	Grouped bool // it is not one that has always been alone
}

// ControlPlan is what becomes of the control plane. Its log of purges is kept as long as a majority
// of the members is there at each step: one after the other is restarted, then new ones join, then
// old ones are taken out.
type ControlPlan struct {
	From    []string `json:"from"`              // members now
	To      []string `json:"to"`                // control nodes of the fleet file
	Removes []string `json:"removes,omitempty"` // members that are to be taken out
	Loses   string   `json:"loses,omitempty"`   // why edges take everything that they have as stale; "" is that they don't

	carries bool // the log is carried over into a group
}

// planControl asks who forms the control plane. It returns nil if nobody knows, as before the first
// deploy, or if too few members run.
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
		default: // may have been one
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
	p.carries = !members.Grouped && kept > 0 && len(p.To) > 1
	if kept == 0 {
		p.Removes = nil
		p.Loses = fmt.Sprintf("no control node of the fleet file has the log: to keep it, deploy with %s beside the new ones first, and remove the old ones later", strings.Join(p.From, ", "))
	} else if old := earlier(plans); p.carries && len(old) > 0 {
		p.Loses = fmt.Sprintf("edges of an earlier version (%s) would take the log for a new one when the control nodes change: to avoid that, deploy the new version first and change control nodes later", strings.Join(old, ", "))
	}
	return p, nil
}

// earlier are the edges that run another version than they are to.
func earlier(plans []*NodePlan) []string {
	var out []string
	for _, n := range plans {
		if n.node.Edge && n.state.running != "" && n.state.running != n.Version {
			out = append(out, n.Node)
		}
	}
	return out
}

// members asks nodes; nil if none of them knows.
func (d *Deploy) members(ctx context.Context, plans []*NodePlan) (*Members, error) {
	answers, errs := make([]*Members, len(plans)), make([]error, len(plans))
	each(plans, func(i int, n *NodePlan) {
		c, err := d.conn(ctx, n.node)
		if err != nil {
			errs[i] = err
			return
		}
		defer d.waits(n.Node, "asking who the control nodes are").end()
		m, err := d.Fleet.Members(ctx, n.Node, c.DialContext)
		if err == nil {
			answers[i] = &m
		} else if !errors.Is(err, ErrNoControl) {
			d.say("%s: does not tell who the control nodes are: %v", n.Node, err)
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
			return nil, fmt.Errorf("there are two control planes: by %s it has %s, by %s it has %s: end one of them, and move its data aside",
				by, strings.Join(out.Names, ", "), plans[i].Node, strings.Join(m.Names, ", "))
		}
	}
	return out, errors.Join(errs...)
}

// write writes what becomes of it, if it changes.
func (p *ControlPlan) write(b *strings.Builder) {
	if slices.Equal(p.From, p.To) {
		return
	}
	fmt.Fprintf(b, "control plane: %s -> %s\n", strings.Join(p.From, ", "), strings.Join(p.To, ", "))
	if p.Loses != "" {
		fmt.Fprintf(b, "  edges will take everything that they have as stale, as the log of purges is lost to them:\n    %s\n", p.Loses)
	} else {
		b.WriteString("  the log of purges is kept\n")
	}
	if p.carries {
		b.WriteString("  purges wait for some seconds, once, while it is carried over\n")
	}
	for _, n := range p.Removes {
		fmt.Fprintf(b, "  take %s out, once others have all that it has\n", n)
	}
}

// order puts control nodes into the order of their turns: members that don't run, as the others
// need them, then members, then new ones.
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

// removeMembers takes those out of the control plane that the fleet file does not have.
func (d *Deploy) removeMembers(ctx context.Context, p *ControlPlan) error {
	if p == nil || len(p.Removes) == 0 {
		return nil
	}
	i := slices.IndexFunc(d.Nodes, func(n Node) bool { return slices.Contains(p.From, n.Name) && slices.Contains(p.To, n.Name) })
	by := &d.Nodes[i] // there is one, or nothing is to be removed
	c, err := d.conn(ctx, by)
	if err != nil {
		return err
	}
	for _, name := range p.Removes {
		if err := d.removeMember(ctx, by.Name, c, name); err != nil {
			return err
		}
		d.say("%s: taken out of the control plane", name)
	}
	return nil
}

func (d *Deploy) removeMember(ctx context.Context, by string, c *Conn, name string) error {
	ctx, cancel := context.WithTimeout(ctx, first(d.Limit, 2*time.Minute))
	defer cancel()
	defer d.waits(name, "taken out of the control plane").end()
	return d.Fleet.Remove(ctx, by, c.DialContext, name)
}
