package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// beatsEvery is how often a control node writes the beats that it heard, and beatsGather how
	// long it gathers them if one tells of a change.
	beatsEvery  = time.Second
	beatsGather = 10 * time.Millisecond
	// beatsFor is how long it goes on after the last beat, so that it knows whether it can.
	beatsFor = 10 * time.Second
	// beatsFresh is how long the last entry may be ago that was written and came back. Edges write
	// their leases themselves then, before these end.
	beatsFresh = 3 * time.Second
	// beatsTime bounds how long writing an entry may take, and beatsAtOnce how many are being
	// written: over an ocean, or on a slow machine, each takes a while.
	beatsTime   = 2 * time.Second
	beatsAtOnce = 32
)

// beats are those that a control node has heard of its edges. They become what others may count
// once a majority of the control nodes has them in the registry.
type beats struct {
	control *Control
	table   *Registry // of the registry as this control node has it
	urgent  chan struct{}

	mu    sync.Mutex
	due   map[string]heardBeat // by node
	heard time.Time            // the last of all
	back  time.Time            // when the last entry came back that this control node wrote
	read  bool                 // all nodes count beats
}

func newBeats(c *Control, table *Registry) *beats {
	return &beats{control: c, table: table, urgent: make(chan struct{}, 1), due: map[string]heardBeat{}}
}

// takeBeat notes what a node says, and reports whether others are going to count it.
func (c *Control) takeBeat(node string, b beat) bool {
	all := c.beats.Load()
	return all != nil && all.take(node, b)
}

func (h *beats) take(node string, b beat) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard = time.Now()
	if !h.read || age(h.back) > beatsFresh || h.due[node].N >= b.N {
		return false
	}
	counts, news := h.table.counts(node, b)
	if !counts {
		return false
	}
	h.due[node] = heardBeat{Node: node, beat: b, at: time.Now()}
	if news {
		select {
		case h.urgent <- struct{}{}:
		default:
		}
	}
	return true
}

// counts reports whether a beat is of a lease that the registry has, and whether it tells of what
// somebody may wait for.
func (r *Registry) counts(node string, b beat) (counts, news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.leases[node]
	counts = ok && !r.catching && s.watch == r.watches && s.counts(b)
	return counts, s.Applied != b.Applied || s.Ready != b.Ready || s.Unproven != b.Unproven
}

// cameBack notes that an entry that this control node wrote is in the registry.
func (h *beats) cameBack() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.back = time.Now()
}

// survey looks whether all nodes count beats, and whether there is anything to do.
func (h *beats) survey() (wanted bool) {
	read := true
	for _, l := range h.table.watched() {
		read = read && (l.Beats || !l.Live)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.read = read
	return !h.heard.IsZero() && age(h.heard) < beatsFor
}

// serve writes beats to the registry until ctx ends.
func (h *beats) serve(ctx context.Context, js jetstream.JetStream) {
	tick := time.NewTicker(beatsEvery)
	defer tick.Stop()
	var work sync.WaitGroup
	defer work.Wait()
	slots := make(chan struct{}, beatsAtOnce)
	for {
		regular := false
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if regular = h.survey(); !regular {
				continue
			}
		case <-h.urgent:
			select {
			case <-time.After(beatsGather):
			case <-ctx.Done():
				return
			}
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		batch := h.collect()
		if len(batch) == 0 && !regular { // one that has none shows that entries can be written
			<-slots
			continue
		}
		work.Go(func() {
			defer func() { <-slots }()
			if err := h.write(ctx, js, batch); err != nil {
				h.control.Log.Debug("control plane: write to the registry what edges say", "error", err)
				h.putBack(batch)
			}
		})
	}
}

// collect takes what is to be written.
func (h *beats) collect() []heardBeat {
	h.mu.Lock()
	defer h.mu.Unlock()
	batch := make([]heardBeat, 0, len(h.due))
	for _, b := range h.due {
		batch = append(batch, b)
	}
	clear(h.due)
	return batch
}

// putBack has beats written again, but for those that others have replaced, or nobody would count.
func (h *beats) putBack(batch []heardBeat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range batch {
		if h.due[b.Node].N < b.N && age(b.at) < LeaseTime {
			h.due[b.Node] = b
		}
	}
}

// write writes an entry.
func (h *beats) write(ctx context.Context, js jetstream.JetStream, batch []heardBeat) error {
	ctx, cancel := context.WithTimeout(ctx, beatsTime)
	defer cancel()
	for i := range batch {
		batch[i].Age = age(batch[i].at).Milliseconds()
	}
	b, err := json.Marshal(beatsEntry{batch})
	if err != nil {
		return err
	}
	if len(b) > maxPurge {
		return errors.New("there are too many")
	}
	if _, err = js.Publish(ctx, "$KV."+leaseBucket+"."+beatsPrefix+h.control.Node, b); err != nil {
		return fmt.Errorf("write %d beats: %w", len(batch), err)
	}
	return nil
}
