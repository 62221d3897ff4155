package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// controlNames returns the names of the control nodes in the fleet file.
func controlNames(f *config.Fleet) []string {
	var out []string
	for i := range f.Nodes {
		if f.Nodes[i].Has(config.RoleControl) {
			out = append(out, f.Nodes[i].Name)
		}
	}
	return out
}

// controlHealthy returns nil if a node is a member of the control plane that has all of the log. If
// the members are the control nodes of the fleet file, each of them must have a replica of the log.
func (d *deployFleet) controlHealthy(ctx context.Context, n *config.Node, dial deploy.DialFunc) error {
	members, replicas, err := d.control(ctx, n, dial)
	if err != nil {
		return err
	}
	if !members.Current[n.Name] {
		return fmt.Errorf("it is not a member yet, or does not have all data of the members %q", members.Names())
	}
	current, has := replicas[n.Name]
	if has && !current || !has && d.settled(members) {
		return errors.New("it does not have the whole log yet")
	}
	return nil
}

// maxKept is the largest number of replicas of the log.
const maxKept = 5

// settled reports whether the members of the control plane are exactly the control nodes of the
// fleet file, and few enough that each of them keeps the log.
func (d *deployFleet) settled(m *fleet.Members) bool {
	want := slices.Sorted(slices.Values(controlNames(d.fleet)))
	return len(want) <= maxKept && slices.Equal(m.Names(), want)
}

// Spare returns nil if the control plane keeps its majority without the node. It also returns nil
// for the only member of a control plane, which nothing can stand in for.
func (d *deployFleet) Spare(ctx context.Context, node string, dial deploy.DialFunc) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	n := d.fleet.Node(node)
	if !n.Has(config.RoleControl) {
		return nil
	}
	if err := d.answers(ctx, n, dial); err != nil {
		return err
	}
	members, replicas, err := d.control(ctx, n, dial)
	if err != nil {
		return err
	}
	names := members.Names()
	if len(names) == 1 || !slices.Contains(names, node) {
		return nil
	}
	if others, majority := members.Others(node), len(names)/2+1; others < majority {
		return fmt.Errorf("only %d other control nodes have all data of the group, and %d are needed", others, majority)
	}
	others := 0
	for name, current := range replicas {
		if name != node && current {
			others++
		}
	}
	// Only replicas count here: while some control nodes are new, fewer nodes keep the log.
	if majority := len(replicas)/2 + 1; others < majority && (len(replicas) > 1 || replicas[node]) {
		return fmt.Errorf("only %d other control nodes have the whole log, and %d are needed", others, majority)
	}
	return nil
}

// answers returns ErrNoControl if no control server of the node accepts connections.
func (d *deployFleet) answers(ctx context.Context, n *config.Node, dial deploy.DialFunc) error {
	c, err := dial(ctx, "tcp", onNode(d.fleet.ControlOf(n).Listen))
	if err != nil {
		return fmt.Errorf("%w: %w", deploy.ErrNoControl, err)
	}
	return c.Close()
}

// Members returns the members of the control plane, as a node knows them.
func (d *deployFleet) Members(ctx context.Context, node string, dial deploy.DialFunc) (deploy.Members, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	n := d.fleet.Node(node)
	if d.key == nil {
		return deploy.Members{}, deploy.ErrNoControl
	}
	if err := d.answers(ctx, n, dial); err != nil {
		return deploy.Members{}, err
	}
	m, _, err := d.control(ctx, n, dial)
	if err != nil {
		return deploy.Members{}, err
	}
	return deploy.Members{Names: m.Names(), Grouped: m.Grouped}, nil
}

// Remove takes a node out of the control plane, through a member. It waits until the remaining
// members are healthy.
func (d *deployFleet) Remove(ctx context.Context, member string, dial deploy.DialFunc, node string) error {
	n := d.fleet.Node(member)
	c, refused, err := d.client(ctx, n, dial, "deploy", fleet.RoleAdmin)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.RemoveMember(ctx, node); err != nil {
		return errors.Join(err, refused.get())
	}
	for {
		err := d.controlHealthy(ctx, n, dial)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was removed from the control plane; %s: %w", node, member, err)
		case <-time.After(time.Second):
		}
	}
}

// control queries the control plane through one of its nodes. It returns the members, and the
// replicas of the log by node: true means that the replica has all of the log.
func (d *deployFleet) control(ctx context.Context, n *config.Node, dial deploy.DialFunc) (*fleet.Members,
	map[string]bool, error) {
	c, refused, err := d.client(ctx, n, dial, "deploy", fleet.RoleAdmin)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	for { // the client connects in the background
		members, err := c.Members(ctx)
		var replicas map[string]bool
		if err == nil {
			replicas, err = c.Replicas(ctx)
		}
		if err == nil {
			for i := range d.fleet.Nodes {
				members.Name(d.fleet.Nodes[i].Name)
			}
			return members, replicas, nil
		}
		select {
		case <-ctx.Done():
			if last := refused.get(); last != nil {
				err = fmt.Errorf("%w: %w", err, last)
			}
			return nil, nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// greetTime is how long greets waits for the first byte of a server.
const greetTime = 300 * time.Millisecond

// greets reports whether a control server sends first, as one of Kaiku 0.1 does.
func greets(ctx context.Context, dial deploy.DialFunc, addr string) bool {
	c, err := dial(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, greetTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { c.Close() })() // a channel over SSH has no deadlines
	_, err = io.ReadFull(c, make([]byte, 1))
	return err == nil
}

// client returns a client of the control plane that connects through a node of it, with the
// identity as. It connects in the background: refused has the last error of a connection attempt.
func (d *deployFleet) client(ctx context.Context, n *config.Node, dial deploy.DialFunc, as,
	role string) (c *fleet.Client, refused *lastError, err error) {
	if d.key == nil {
		return nil, nil, errors.New("the fleet file has no secrets.fleet_key, which is needed to query it")
	}
	conf, err := d.key.TLS(as, role)
	if err != nil {
		return nil, nil, err
	}
	refused = &lastError{}
	addr := onNode(d.fleet.ControlOf(n).Listen)
	c = &fleet.Client{Node: as, Servers: []string{addr}, TLS: conf, Greeted: greets(ctx, dial, addr),
		Log: slog.New(slog.DiscardHandler),
		DialTCP: func(network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			refused.set(err)
			return conn, err
		}}
	return c, refused, c.Dial()
}
