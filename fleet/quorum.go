package fleet

import (
	"context"
	"fmt"
)

// maxReplicas is the highest number of replicas that NATS supports.
const maxReplicas = 5

// boundOf returns the limits of a bucket, in bytes and in entries, so that a node that may write to
// it can't fill the memory and the disks of all. Both are 0 for the log of purges, which has limits
// of its own.
func boundOf(stream string) (bytes, entries int64) {
	switch stream {
	case "KV_" + leaseBucket: // a lease has a few hundred bytes
		return 16 << 20, maxGateConns
	case "KV_" + drainBucket:
		return 1 << 20, maxGateConns
	case "KV_" + certificateBucket:
		return 256 << 20, 1 << 16
	case "KV_" + challengeBucket:
		return 8 << 20, 1 << 12
	}
	return 0, 0
}

// grow raises the number of replicas of streams after control nodes were added, and sets missing
// limits. It returns an error while a stream doesn't exist.
func (c *Client) grow(ctx context.Context, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, name := range streamNames() {
		s, err := c.js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("read the number of copies of %s: %w", name, err)
		}
		conf := s.CachedInfo().Config
		bytes, entries := boundOf(name)
		if conf.Replicas >= replicas && (bytes == 0 || conf.MaxBytes > 0 && conf.MaxMsgs > 0) {
			continue
		}
		conf.Replicas = max(conf.Replicas, replicas)
		if bytes > 0 {
			conf.MaxBytes, conf.MaxMsgs = bytes, entries
		}
		if _, err := c.js.UpdateStream(ctx, conf); err != nil {
			return fmt.Errorf("set the number of copies of %s to %d: %w", name, replicas, err)
		}
	}
	return nil
}

// Replicas returns the control nodes that have a replica of the log of purges, and whether each
// replica is complete.
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
