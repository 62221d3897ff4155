package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Heard distinguishes two signs of life of a node. The zero Heard means that there was none.
type Heard struct {
	Revision uint64 // of the lease in the registry
	Beat     uint64 // the last beat that a control node has written; 0 means none
}

// Since reports whether the node gave a sign of life after an earlier one.
func (h Heard) Since(earlier Heard) bool {
	return h.Revision > earlier.Revision || h.Revision == earlier.Revision && h.Beat > earlier.Beat
}

// Lease returns the last lease of a node, with Draining but without Live. Its Node is "" if there
// is none.
func (c *Client) Lease(ctx context.Context, node string) (lease Lease, heard Heard, err error) {
	defer c.hold()()
	_, leases, drains, err := c.ready(ctx)
	if err != nil {
		return lease, Heard{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	switch e, err := leases.Get(ctx, node); {
	case err == nil:
		if err := json.Unmarshal(e.Value(), &lease); err != nil {
			return lease, Heard{}, fmt.Errorf("the lease of node %s: %w", node, err)
		}
		heard.Revision = e.Revision()
		if heard.Beat, err = c.lastBeat(ctx, lease, leases); err != nil {
			return lease, Heard{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return lease, Heard{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	switch e, err := drains.Get(ctx, node); {
	case err == nil:
		lease.Draining = string(e.Value()) == "true"
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return lease, Heard{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return lease, heard, nil
}

// lastBeat returns the number of the last beat of a lease that control nodes have written, or 0.
func (c *Client) lastBeat(ctx context.Context, lease Lease, leases jetstream.KeyValue) (n uint64, err error) {
	if !lease.Beats {
		return 0, nil
	}
	replicas, err := c.Replicas(ctx)
	if err != nil {
		return 0, err
	}
	of := seen{Lease: lease, written: lease.Renewed}
	for control := range replicas {
		e, err := leases.Get(ctx, beatsPrefix+control)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		var entry beatsEntry
		if json.Unmarshal(e.Value(), &entry) != nil {
			continue // of an unknown version
		}
		for _, b := range entry.Beats {
			if b.Node == lease.Node && of.counts(b.beat) {
				of.n = b.N
			}
		}
	}
	return of.n, nil
}

// Forget deletes a node that won't come back from the registry, with its drain mark. Only a client
// with the node's own name may call it.
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
