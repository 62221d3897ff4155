package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Two machines can have the same node's name by mistake: a machine was cloned, or one that was
// replaced starts again. Then the lease is true of one of them, while the other may serve clients.
// So a lease is renewed only if no other process has written it since. A process that finds another
// one's lease logs that. The process that started later is refused: it no longer renews its lease,
// and trusts nothing in its store.
//
// A process that was killed leaves a lease that nobody renews, so the node's next process takes it
// over.

// duplicate is another process with the node's name.
type duplicate struct {
	process  string    // the other process; "" means none
	renewed  time.Time // Lease.Renewed, by its clock
	lastSeen time.Time // when it last renewed its lease
	renewals int       // number of renewals seen
	refused  bool      // this process is refused, because the other one started earlier
}

// maxOwnRenewals is how many of its own renewals a process remembers. A renewal whose answer was
// lost may turn up later.
const maxOwnRenewals = 16

// Refused reports whether another process with the node's name started earlier. Then this one's
// store must not be trusted.
func (r *Registry) Refused() bool { return r.refused.Load() }

// put writes the lease, unless a process that started earlier renews it. It is for one goroutine.
func (r *Registry) put(ctx context.Context, leases jetstream.KeyValue, l Lease) error {
	if r.process == "" {
		r.process = rand.Text()
	}
	if r.refused.Load() {
		if err := r.checkOwner(ctx, leases, l); err != nil || r.refused.Load() {
			return err
		}
	}
	l.Process = r.process
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if r.ownRenewals = append(r.ownRenewals, l.Renewed); len(r.ownRenewals) > maxOwnRenewals {
		r.ownRenewals = slices.Delete(r.ownRenewals, 0, 1)
	}
	revision := r.revision
	r.revision = 0 // until it is read again
	if revision == 0 {
		revision, err = leases.Put(ctx, r.Client.Node, b)
	} else if revision, err = leases.Update(ctx, r.Client.Node, b, revision); changedMeanwhile(err) {
		if err := r.checkOwner(ctx, leases, l); err != nil || r.refused.Load() {
			return err
		}
		revision, err = leases.Put(ctx, r.Client.Node, b)
	}
	if err != nil {
		return fmt.Errorf("renew the lease: %w", err)
	}
	r.revision = revision
	r.hasWritten(l)
	return nil
}

// checkOwner reads who wrote the lease last, and decides which process is refused.
func (r *Registry) checkOwner(ctx context.Context, leases jetstream.KeyValue, own Lease) error {
	e, err := leases.Get(ctx, r.Client.Node)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		r.clearDuplicate("it has stopped")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read who renewed the lease: %w", err)
	}
	var other Lease
	known := json.Unmarshal(e.Value(), &other) != nil || other.Process == "" || r.wrote(other) ||
		other.Process == r.duplicate.process && other.Renewed.Equal(r.duplicate.renewed)
	r.expireDuplicate()
	if known {
		return nil
	}
	if other.Process == r.process { // the memory was cloned, too
		r.process = rand.Text()
	}
	r.recordDuplicate(other, own)
	return nil
}

// wrote reports whether this process wrote a lease.
func (r *Registry) wrote(l Lease) bool {
	return l.Process == r.process && slices.ContainsFunc(r.ownRenewals, l.Renewed.Equal)
}

// recordDuplicate records a renewal by another process.
func (r *Registry) recordDuplicate(other, own Lease) {
	d := &r.duplicate
	d.process, d.renewed, d.lastSeen = other.Process, other.Renewed, time.Now()
	d.renewals++
	r.beatState.duplicate.Store(true)
	first := own.Started.Before(other.Started) || own.Started.Equal(other.Started) && r.process < other.Process
	attrs := []any{"node", r.Client.Node, "its_address", other.Address, "it_started", other.Started,
		"this_started", own.Started}
	switch {
	case d.renewals == 1 && first:
		r.Client.Log.Error("registry: another machine runs under this node's name, perhaps a clone: it is refused; "+
			"stop it, or give it a name of its own in the fleet file", attrs...)
	case !d.refused && !first:
		d.refused = true
		r.Client.Log.Error("registry: this node is refused, because another machine with the same name started earlier: "+
			"stop this one, or give it a name of its own in the fleet file", attrs...)
	}
	r.refused.Store(d.refused)
}

// expireDuplicate forgets another process that gave no sign of life for a while. One that was seen
// twice may be cut off, and still trust its store.
func (r *Registry) expireDuplicate() {
	limit := LeaseTime
	if r.duplicate.renewals > 1 {
		limit = max(r.MaxDisconnected, defaultDisconnected) + LeaseTime
	}
	if r.duplicate.process != "" && age(r.duplicate.lastSeen) > limit {
		r.clearDuplicate("it has not renewed its lease for a while")
	}
}

// clearDuplicate records that there is no other process with the node's name.
func (r *Registry) clearDuplicate(why string) {
	if r.duplicate.process != "" {
		r.Client.Log.Info("registry: no other machine runs under this node's name any more: "+why, "node", r.Client.Node)
	}
	r.duplicate = duplicate{}
	r.beatState.duplicate.Store(false)
	r.refused.Store(false)
}
