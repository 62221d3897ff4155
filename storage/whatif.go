package storage

import (
	"sync"
	"sync/atomic"
	"time"
)

// WhatIf says how many requests the store would have hit with other budgets. A part of all objects,
// chosen by the hash of their keys, is simulated (SHARDS; Waldspurger et al., FAST 2015).
type WhatIf struct {
	// Sampled is the share of the objects that are simulated.
	Sampled float64 `json:"sampled"`
	// Requests is the number of requests that the result is based on. Older ones count less: half
	// after an hour.
	Requests float64 `json:"requests"`
	// Disk has the results by budget on disk, and Memory by that of the RAM tier. The third of each
	// is the budget that the store has.
	Disk   []WhatIfBudget `json:"disk"`
	Memory []WhatIfBudget `json:"memory,omitempty"`
}

// WhatIfBudget is the result for one budget.
type WhatIfBudget struct {
	Bytes int64   `json:"bytes"`
	Hits  float64 `json:"hits"`      // share of the requests
	Saved float64 `json:"hit_bytes"` // share of the bytes
	// Missed is the bytes a day that come from elsewhere: for Disk from the origin or another edge,
	// for Memory from the disk too.
	Missed float64 `json:"missed_bytes_per_day"`
}

const (
	// leastRate is the smallest number of objects of which one is simulated, and maxSimulated the
	// number of objects in the largest simulation, beyond which the rate is doubled. All
	// simulations together take less than 8 MiB.
	leastRate    = 16
	maxSimulated = 9_000
	// whatIfHalf is the time after which requests count half.
	whatIfHalf = time.Hour
)

var whatIfFactors = [...]float64{0.25, 0.5, 1, 2, 4}

// whatIf simulates the store with other budgets.
type whatIf struct {
	disk, memory int64
	all          [64]allRequests // by slot, so that cores don't wait for each other

	mu       sync.Mutex
	rate     uint64         // one of so many objects is simulated
	waiting  []pending      // requests that are not simulated yet, in the order of the first of each object
	place    map[uint64]int // by slot: the index in waiting
	due      int            // requests of all of waiting
	onDisk   tiers
	inMemory tiers
	sampled  sum     // requests for simulated objects
	past     sum     // of all requests, what no longer counts
	seconds  float64 // that the counts are of; decays as they do
	at       time.Time
	half     time.Time // when the counts are halved next
}

// pending are requests for an object.
type pending struct {
	slot uint64
	size int64
	n    int
}

// Requests wait until there are so many, for so many objects. So requests for popular objects,
// which come often, cost little.
const (
	maxWaiting = 256
	maxDue     = 8192
)

// allRequests counts requests for all objects.
type allRequests struct {
	requests, bytes atomic.Int64
	_               [48]byte // a cache line each
}

// sum is a number of requests, and their bytes.
type sum struct{ requests, bytes float64 }

func (s *sum) halve() { s.requests, s.bytes = s.requests/2, s.bytes/2 }

// tiers are the simulations of one tier by budget, and their hits.
type tiers struct {
	sims [len(whatIfFactors)]*Simulation
	hits [len(whatIfFactors)]sum
}

func newWhatIf(disk, memory int64, now time.Time) *whatIf {
	w := &whatIf{disk: disk, memory: memory, rate: leastRate, at: now, half: now.Add(whatIfHalf),
		place: map[uint64]int{}}
	for i, f := range whatIfFactors {
		w.onDisk.sims[i] = NewSimulation(int64(f*float64(disk)) / leastRate)
		if memory > 0 {
			w.inMemory.sims[i] = NewSimulation(int64(f*float64(memory)) / leastRate)
		}
	}
	return w
}

// request counts a request for an object.
func (w *whatIf) request(slot uint64, size int64) {
	all := &w.all[slot>>58]
	all.requests.Add(1)
	all.bytes.Add(size)
	if slot%leastRate != 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	i, ok := w.place[slot]
	if !ok {
		i = len(w.waiting)
		w.place[slot] = i
		w.waiting = append(w.waiting, pending{slot: slot})
	}
	w.waiting[i].size = size
	w.waiting[i].n++
	if w.due++; len(w.waiting) == maxWaiting || w.due == maxDue {
		w.simulate(time.Now())
	}
}

// simulate simulates the requests that wait.
func (w *whatIf) simulate(now time.Time) {
	w.decay(now)
	for _, r := range w.waiting {
		if r.slot%w.rate != 0 {
			continue
		}
		n := float64(r.n)
		w.sampled.requests += n
		w.sampled.bytes += n * float64(r.size)
		w.onDisk.request(r)
		if w.memory > 0 && r.size <= maxCopied {
			w.inMemory.request(r)
		}
		for w.onDisk.largest() > maxSimulated || w.inMemory.largest() > maxSimulated {
			w.rate *= 2
			w.sampled.halve()
			w.onDisk.thin(w.rate, w.disk)
			w.inMemory.thin(w.rate, w.memory)
		}
	}
	w.waiting, w.due = w.waiting[:0], 0
	clear(w.place)
}

func (t *tiers) request(r pending) {
	for i, s := range t.sims {
		hits := r.n
		if !s.Request(r.slot, r.size) {
			hits--
		}
		for range min(r.n-1, maxHits) { // more hits change nothing
			if !s.Request(r.slot, r.size) {
				hits = 0 // it is too large for this budget
				break
			}
		}
		t.hits[i].requests += float64(hits)
		t.hits[i].bytes += float64(hits) * float64(r.size)
	}
}

func (t *tiers) halve() {
	for i := range t.hits {
		t.hits[i].halve()
	}
}

// largest returns the number of objects of the largest simulation.
func (t *tiers) largest() int {
	last := t.sims[len(t.sims)-1]
	if last == nil {
		return 0
	}
	return len(last.where)
}

// thin reduces the simulations to one of rate objects, half as many as before, and their budgets by
// as much.
func (t *tiers) thin(rate uint64, budget int64) {
	t.halve()
	for i, s := range t.sims {
		if s != nil {
			s.thin(rate, int64(whatIfFactors[i]*float64(budget))/int64(rate))
		}
	}
}

// decay advances the time, and halves the counts if it is time to.
func (w *whatIf) decay(now time.Time) {
	w.seconds += now.Sub(w.at).Seconds()
	w.at = now
	if now.Before(w.half) {
		return
	}
	w.half = now.Add(whatIfHalf)
	counted := w.counted()
	counted.halve()
	w.past.requests += counted.requests
	w.past.bytes += counted.bytes
	w.sampled.halve()
	w.seconds /= 2
	w.onDisk.halve()
	w.inMemory.halve()
}

// counted returns the requests for all objects.
func (w *whatIf) counted() (s sum) {
	for i := range w.all {
		s.requests += float64(w.all[i].requests.Load())
		s.bytes += float64(w.all[i].bytes.Load())
	}
	return sum{s.requests - w.past.requests, s.bytes - w.past.bytes}
}

// results returns the results of a tier. The sample may have more or less of the most popular
// objects than its share. They are hits with every budget, so the difference between its requests
// and its share of all requests counts as hits (SHARDS-adj).
func (w *whatIf) results(t *tiers, budget int64) []WhatIfBudget {
	all := w.counted()
	requests, bytes := all.requests/float64(w.rate), w.sampled.bytes
	if all.requests > 0 {
		bytes += (requests - w.sampled.requests) * all.bytes / all.requests
	}
	list := make([]WhatIfBudget, len(whatIfFactors))
	for i, f := range whatIfFactors {
		list[i].Bytes = int64(f * float64(budget))
		list[i].Hits = share(t.hits[i].requests-w.sampled.requests, requests)
		list[i].Saved = share(t.hits[i].bytes-w.sampled.bytes, bytes)
		if w.seconds > 0 {
			list[i].Missed = (1 - list[i].Saved) * all.bytes / w.seconds * 86400
		}
	}
	return list
}

// share returns the share of hits, from the negative number of misses and the number of requests.
func share(misses, requests float64) float64 {
	if requests <= 0 {
		return 0
	}
	return max(0, 1+misses/requests)
}

// WhatIf returns how the store would do with other budgets.
func (s *Store) WhatIf() WhatIf {
	w := s.whatIf
	w.mu.Lock()
	defer w.mu.Unlock()
	w.simulate(time.Now())
	r := WhatIf{Sampled: 1 / float64(w.rate), Requests: w.counted().requests, Disk: w.results(&w.onDisk, w.disk)}
	if w.memory > 0 {
		r.Memory = w.results(&w.inMemory, w.memory)
	}
	return r
}
