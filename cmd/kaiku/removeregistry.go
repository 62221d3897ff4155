package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// nodeRegistry is a node's entry in the registry of the control plane. It connects through the
// machine of a control node, with the identity of the removed node, because no other node may
// change that node's lease.
type nodeRegistry struct {
	running *deployFleet
	deploy  *deploy.Deploy
	node    string

	client *fleet.Client // nil before the first request
	conn   *deploy.Conn
}

// connect connects to the control plane through the first control node that answers.
func (r *nodeRegistry) connect(ctx context.Context) (*fleet.Client, error) {
	if r.client != nil {
		return r.client, nil
	}
	var errs []error
	f := r.running.fleet
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if !n.Has(config.RoleControl) {
			continue
		}
		err := r.connectBy(ctx, n)
		if err == nil {
			return r.client, nil
		}
		errs = append(errs, fmt.Errorf("by node %s: %w", n.Name, err))
	}
	return nil, errors.Join(errs...)
}

func (r *nodeRegistry) connectBy(ctx context.Context, n *config.Node) error {
	at := slices.IndexFunc(r.deploy.Nodes, func(o deploy.Node) bool { return o.Name == n.Name })
	conn, err := r.deploy.Dialer.Dial(ctx, n.Name, r.deploy.Nodes[at].SSH)
	if err != nil {
		return err
	}
	// The client outlives this call, so it must not end with ctx.
	client, refused, err := r.running.client(context.WithoutCancel(ctx), n, conn.DialContext, r.node, fleet.RoleEdge)
	if err != nil {
		conn.Close()
		return err
	}
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	for {
		if _, _, err = client.Lease(look, r.node); err == nil {
			r.client, r.conn = client, conn
			return nil
		}
		select {
		case <-look.Done():
			client.Close()
			conn.Close()
			if last := refused.get(); last != nil {
				err = fmt.Errorf("%w: %w", err, last)
			}
			return err
		case <-time.After(100 * time.Millisecond): // the client connects in the background
		}
	}
}

func (r *nodeRegistry) close() {
	if r.client != nil {
		r.client.Close()
		r.conn.Close()
	}
}

// Look returns the registry's entry of the node. With watch, it waits up to fleet.LeaseTime for a
// renewal of the lease, which shows that the node is live. A node that keeps a replica of the log
// of purges is an error.
func (r *nodeRegistry) Look(ctx context.Context, watch bool) (deploy.Registered, error) {
	c, err := r.connect(ctx)
	if err != nil {
		return deploy.Registered{}, err
	}
	replicas, err := c.Replicas(ctx)
	if err != nil {
		return deploy.Registered{}, err
	}
	if _, has := replicas[r.node]; has {
		return deploy.Registered{}, errors.New("it has a copy of the log of purges: first deploy a fleet file without its role control")
	}
	lease, heard, err := c.Lease(ctx, r.node)
	if err != nil {
		return deploy.Registered{}, err
	}
	out := deploy.Registered{Known: lease.Node != "" || lease.Draining,
		Edge: slices.Contains(lease.Roles, fleet.RoleEdge), Drain: lease.Draining}
	for end := time.Now().Add(fleet.LeaseTime); watch && lease.Node != "" && !out.Live && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return out, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		_, now, err := c.Lease(ctx, r.node)
		if err != nil {
			return out, err
		}
		out.Live = now.Since(heard)
	}
	return out, nil
}

// Drain sets or removes the drain mark of the node.
func (r *nodeRegistry) Drain(ctx context.Context, drain bool) error {
	c, err := r.connect(ctx)
	if err != nil {
		return err
	}
	return c.Drain(ctx, r.node, drain)
}

// Forget removes the node from the registry.
func (r *nodeRegistry) Forget(ctx context.Context) error {
	c, err := r.connect(ctx)
	if err != nil {
		return err
	}
	return c.Forget(ctx, r.node)
}
