package storage

import "slices"

// Simulation is the policy of a store without a store. It tells which requests the store would have
// hit. An object must be smaller than a quarter of the budget.
type Simulation struct {
	limit     int64
	segment   int64
	open      [classes]*simSegment
	sealed    [classes][]*simSegment
	where     map[uint64]*simObject
	ghosts    *ghosts
	fresh     int64 // bytes stored anew
	rewritten int64
}

type simSegment struct {
	used    int64
	objects []*simObject
}

type simObject struct {
	key  uint64
	size int64
	in   *simSegment
	hits uint8
}

// NewSimulation returns the Simulation of an empty store with a budget on disk, in bytes.
func NewSimulation(budget int64) *Simulation {
	return &Simulation{limit: budget, segment: budget / segmentCount, where: map[uint64]*simObject{},
		ghosts: newGhosts(budget), open: [classes]*simSegment{{}, {}}}
}

// Request reports whether the store has an object. If not, the store fetches it.
func (s *Simulation) Request(key uint64, size int64) (hit bool) {
	if o := s.where[key]; o != nil {
		o.hits = min(o.hits+1, maxHits)
		return true
	}
	if size > s.limit/4 {
		return false
	}
	c := probation
	if s.ghosts.take(key) {
		c = main
	}
	s.fresh += size
	s.write(c, key, size)
	return false
}

// Written returns the bytes of the objects that were fetched, and of those that were written again
// to keep them when their segment was dropped.
func (s *Simulation) Written() (fresh, again int64) { return s.fresh, s.rewritten }

func (s *Simulation) write(c class, key uint64, size int64) {
	o := &simObject{key: key, size: size, in: s.open[c]}
	s.where[key] = o
	o.in.objects = append(o.in.objects, o)
	o.in.used += size
	if o.in.used < s.segment {
		return
	}
	s.sealed[c] = append(s.sealed[c], o.in)
	s.open[c] = &simSegment{}
	for {
		var used [classes]int64
		for k := range classes {
			used[k] = s.segment
			for _, sealed := range s.sealed[k] {
				used[k] += sealed.used
			}
		}
		if used[probation]+used[main] <= s.limit {
			return
		}
		s.drop(overfull(used, s.limit))
	}
}

func (s *Simulation) drop(c class) {
	if len(s.sealed[c]) == 0 {
		c = 1 - c
	}
	old := s.sealed[c][0]
	s.sealed[c] = s.sealed[c][1:]
	for _, o := range old.objects {
		if s.where[o.key] != o {
			continue
		}
		delete(s.where, o.key)
		if c.keeps(o.hits) && s.rewritten*100 < s.fresh*maxRewrite {
			s.rewritten += o.size
			s.write(main, o.key, o.size)
		} else {
			s.ghosts.add(o.key, o.size)
		}
	}
}

// thin forgets all objects but those whose key is a multiple of rate, and sets the budget.
func (s *Simulation) thin(rate uint64, budget int64) {
	s.limit, s.segment = budget, budget/segmentCount
	for c := range classes {
		for _, g := range append(s.sealed[c], s.open[c]) {
			g.used = 0
			g.objects = slices.DeleteFunc(g.objects, func(o *simObject) bool {
				if o.key%rate == 0 {
					g.used += o.size
					return false
				}
				if s.where[o.key] == o {
					delete(s.where, o.key)
				}
				return true
			})
		}
	}
	old := s.ghosts
	s.ghosts = newGhosts(budget)
	for _, g := range old.queue[old.head:] {
		if g.slot%rate == 0 {
			s.ghosts.add(g.slot, g.size)
		}
	}
}
