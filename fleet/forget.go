package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Lease returns what a node said of itself last, with Draining but without Live; without a Node if
// it said nothing. heard is another number each time that it is heard of.
func (c *Client) Lease(ctx context.Context, node string) (lease Lease, heard uint64, err error) {
	defer c.hold()()
	_, leases, drains, err := c.ready(ctx)
	if err != nil {
		return lease, 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	switch e, err := leases.Get(ctx, node); {
	case err == nil:
		if err := json.Unmarshal(e.Value(), &lease); err != nil {
			return lease, 0, fmt.Errorf("the lease of node %s: %w", node, err)
		}
		heard = e.Revision()
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return lease, 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	switch e, err := drains.Get(ctx, node); {
	case err == nil:
		lease.Draining = string(e.Value()) == "true"
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return lease, 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return lease, heard, nil
}

// Forget takes a node out of the registry, with its mark of a drain: for one that will not come
// back. Only a client of the node's own name may.
func (c *Client) Forget(ctx context.Context, node string) error {
	defer c.hold()()
	_, leases, drains, err := c.ready(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, bucket := range []jetstream.KeyValue{leases, drains} {
		if err := bucket.Delete(ctx, node); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return nil
}
