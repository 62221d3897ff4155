package fleet

import (
	"context"
	"fmt"
	"net"
)

// dialFunc is a function as what NATS connects by.
type dialFunc func(network, addr string) (net.Conn, error)

// Dial calls the function.
func (f dialFunc) Dial(network, addr string) (net.Conn, error) { return f(network, addr) }

// Replicas are the control nodes that have a replica of the log of purges, and whether each has all of it.
func (c *Client) Replicas(ctx context.Context) (map[string]bool, error) {
	stream, _, _, err := c.ready(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	info, err := stream.Info(ctx)
	if err != nil {
		c.missed(err)
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	out := map[string]bool{}
	if info.Cluster == nil {
		return out, nil
	}
	if info.Cluster.Leader != "" {
		out[info.Cluster.Leader] = true
	}
	for _, r := range info.Cluster.Replicas {
		out[r.Name] = r.Current && !r.Offline
	}
	return out, nil
}
