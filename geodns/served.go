package geodns

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"
)

// served counts which countries the server sends to which nodes, for people to read. A worker takes
// one answer in sampleEvery as a sample of all its answers since the last sample. So a query costs
// one more comparison, and clients are located apart from the answers.
type served struct {
	samples chan sample // created by the first Reload

	mu sync.Mutex
	by map[string]map[string]float64 // by node and country
}

// sample is a client that was sent to a node.
type sample struct {
	client  netip.Addr
	node    string
	answers int // that the sample stands for
}

const (
	// sampleEvery is the least time between two samples of a worker, in ticks.
	sampleEvery = uint64(10 * time.Millisecond / tick)
	// maxSamples is how many samples may wait to be located. Further ones are dropped.
	maxSamples = 256
	// servedEvery is how often the counts decrease, by a tenth: a count has half its weight for
	// seven minutes. Less than servedLeast counts as nothing.
	servedEvery = time.Minute
	servedLeast = 0.2
)

// sample takes an answer from an edge name as a sample, if it is time.
func (w *worker) sample() {
	w.unsampled++
	now := w.now()
	if now-w.sampledAt < sampleEvery && w.sampledAt != 0 {
		return
	}
	r := &w.resolver
	select {
	case w.server.served.samples <- sample{r.client(), r.served[0].node.name, w.unsampled}:
		w.unsampled = 0
	default:
	}
	w.sampledAt = now
}

// run counts samples until ctx ends.
func (c *served) run(ctx context.Context, s *Server) {
	tick := time.NewTicker(servedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-c.samples:
			c.count(m, s.current.Load())
		case <-tick.C:
			c.decrease()
		}
	}
}

// count adds a sample to the counts of its country. A client without a country doesn't count.
func (c *served) count(m sample, snap *snapshot) {
	country := snap.locator.country(m.client)
	if country == "" || snap.states[m.node] == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]map[string]float64{}
	}
	if c.by[m.node] == nil {
		c.by[m.node] = map[string]float64{}
	}
	c.by[m.node][country] += float64(m.answers)
}

func (c *served) decrease() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, countries := range c.by {
		for country := range countries {
			if countries[country] *= 0.9; countries[country] < servedLeast {
				delete(countries, country)
			}
		}
		if len(countries) == 0 {
			delete(c.by, node)
		}
	}
}

// country returns the country of an address, ISO 3166-1 alpha-2, or "".
func (l *locator) country(addr netip.Addr) string {
	var place Place
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return ""
	}
	if at := l.find(addr, &place); at.country != "" {
		return at.country
	}
	return l.countries.find(addr, &place).country
}

// Served returns about how many answers of the last minutes sent clients of each country to each
// node, by node and country. Countries are ISO 3166-1 alpha-2.
func (s *Server) Served() map[string]map[string]float64 {
	s.served.mu.Lock()
	defer s.served.mu.Unlock()
	out := make(map[string]map[string]float64, len(s.served.by))
	for node, countries := range s.served.by {
		out[node] = maps.Clone(countries)
	}
	return out
}
