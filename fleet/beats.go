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
	// beatsEvery is how often a control node writes the beats that it received. If a beat has a
	// change, it writes them after beatsGather.
	beatsEvery  = time.Second
	beatsGather = 10 * time.Millisecond
	// beatsFor is how long it goes on writing after the last beat, to find out whether it can
	// write.
	beatsFor = 10 * time.Second
	// beatsFresh is how old the last entry that came back may be. Beyond that, beats are rejected,
	// so that edges write their leases themselves before these expire.
	beatsFresh = 3 * time.Second
	// beatsTime bounds the write of one entry. beatsAtOnce bounds how many writes are under way:
	// over an ocean, or on a slow machine, each takes a while.
	beatsTime   = 2 * time.Second
	beatsAtOnce = 32
)

// beats collects the beats that a control node receives from its edges. Other nodes count a beat
// once a majority of the control nodes has it in the registry.
type beats struct {
	control *Control
	table   *Registry // the registry as this control node sees it
	urgent  chan struct{}

	mu    sync.Mutex
	due   map[string]heardBeat // by node
	heard time.Time            // when the last beat was received
	back  time.Time            // when this control node's last entry came back
	read  bool                 // whether all nodes count beats
}

func newBeats(c *Control, table *Registry) *beats {
	return &beats{control: c, table: table, urgent: make(chan struct{}, 1), due: map[string]heardBeat{}}
}

// takeBeat takes a beat, and reports whether other nodes will count it.
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

// counts reports whether a beat belongs to a lease in the registry, and whether it has a change
// that somebody may wait for.
func (r *Registry) counts(node string, b beat) (counts, news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.leases[node]
	counts = ok && !r.catching && s.watch == r.watches && s.counts(b)
	return counts, s.Applied != b.Applied || s.Ready != b.Ready || s.Unproven != b.Unproven
}

// entryArrived records that an entry of this control node has reached the registry.
func (h *beats) entryArrived() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.back = time.Now()
}

// survey finds out whether all nodes count beats. It reports whether there is anything to write.
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
		if len(batch) == 0 && !regular { // an entry without beats shows that entries can be written
			<-slots
			continue
		}
		work.Go(func() {
			defer func() { <-slots }()
			if err := h.write(ctx, js, batch); err != nil {
				h.control.Log.Debug("control plane: write the beats of edges to the registry", "error", err)
				h.putBack(batch)
			}
		})
	}
}

// collect returns the beats that are due.
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

// putBack makes beats due again, except those that later ones have replaced or that nobody would
// count.
func (h *beats) putBack(batch []heardBeat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range batch {
		if h.due[b.Node].N < b.N && age(b.at) < LeaseTime {
			h.due[b.Node] = b
		}
	}
}

// write writes an entry with beats.
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
		return errors.New("too many beats")
	}
	if _, err = js.Publish(ctx, "$KV."+leaseBucket+"."+beatsPrefix+h.control.Node, b); err != nil {
		return fmt.Errorf("write %d beats: %w", len(batch), err)
	}
	return nil
}
