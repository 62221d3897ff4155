package storage

import (
	"container/list"
	"testing"
)

// waiting is a Simulation before which new small objects wait in RAM. One that is asked for again
// is written. One that is pushed out is written while the disk has room, and later it is dropped.
type waiting struct {
	*Simulation
	room    int64 // bytes of objects that wait at most
	largest int64 // size of the largest object that waits
	used    int64
	order   *list.List // of request, oldest first
	held    map[uint64]*list.Element
	full    bool // a segment was dropped
	written int  // objects written anew
}

func newWaiting(limit, room int64) *waiting {
	return &waiting{Simulation: NewSimulation(limit), room: room, largest: min(MaxBody, room/4), order: list.New(),
		held: map[uint64]*list.Element{}}
}

func (w *waiting) get(r request) bool {
	if e := w.held[r.key]; e != nil {
		w.remove(e)
		w.store(probation, r)
		w.where[r.key].hits = 1
		return true
	}
	switch {
	case w.where[r.key] != nil:
		return w.Request(r.key, r.size)
	case r.size > w.limit/4:
		return false
	case w.ghosts.take(r.key):
		w.store(main, r)
		return false
	case r.size > w.largest:
		w.store(probation, r)
		return false
	}
	w.full = w.full || w.ghosts.bytes > 0
	w.used += r.size
	w.held[r.key] = w.order.PushBack(r)
	for w.used > w.room {
		out := w.remove(w.order.Front())
		if w.full {
			w.ghosts.add(out.key, out.size)
		} else {
			w.store(probation, out)
		}
	}
	return false
}

func (w *waiting) remove(e *list.Element) request {
	r := w.order.Remove(e).(request)
	delete(w.held, r.key)
	w.used -= r.size
	return r
}

func (w *waiting) store(c class, r request) {
	w.fresh += r.size
	w.written++
	w.write(c, r.key, r.size)
}

// TestAdmission compares the store with one that holds new small objects in RAM until they are
// asked for again. docs/decisions/admission.md has what follows from that.
func TestAdmission(t *testing.T) {
	t.Parallel()
	requests := trace(9, 0.9, 10_000, 100_000)
	seen := map[uint64]bool{}
	footprint := int64(0)
	for _, r := range requests {
		if !seen[r.key] {
			seen[r.key] = true
			footprint += r.size
		}
	}
	for _, share := range []float64{0.01, 0.1, 0.6} {
		limit := int64(share * float64(footprint))
		now, held := newWaiting(limit, 0), newWaiting(limit, limit/20)
		before, after := replay(now, requests), replay(held, requests)
		bytes := float64(held.fresh+held.rewritten) / float64(now.fresh+now.rewritten)
		t.Logf("cache of %2.0f %%: misses %.4f, held %.4f; %.2f of the bytes written, %.2f of the objects", share*100,
			before.objects, after.objects, bytes, float64(held.written)/float64(now.written))
		if after.objects > before.objects*1.01 || bytes > 1 {
			t.Errorf("holding new objects in a twentieth costs misses or writes")
		}
	}
}
