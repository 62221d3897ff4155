package purge

import (
	"fmt"
	"sync"
)

// A request with ?wait=all may wait for minutes if an edge is away, and it checks all edges
// whenever one reports progress. So the number of waiting requests is bounded, in all and for each
// token. A request beyond that is refused before it purges anything, so the client can send it
// again as it is.
const (
	maxWaits     = 256
	maxWaitsEach = maxWaits / 4 // of one token
)

// waits counts the waiting requests, in all and by the hash of their token.
type waits struct {
	mu  sync.Mutex
	all int
	of  map[[32]byte]int
}

// begin counts a waiting request. It returns the function that takes the count back, or an error if
// there are too many.
func (p *waits) begin(g *Grant) (end func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.all >= maxWaits:
		return nil, &tooManyError{fmt.Errorf("%d requests already wait for all edges", p.all)}
	case p.of[g.token] >= maxWaitsEach:
		return nil, &tooManyError{fmt.Errorf("%d requests with this token already wait for all edges", p.of[g.token])}
	}
	if p.of == nil {
		p.of = map[[32]byte]int{}
	}
	p.all++
	p.of[g.token]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.of[g.token]--; p.of[g.token] == 0 {
			delete(p.of, g.token)
		}
	}), nil
}

// tooManyError is the error of a purge that is refused because too many requests wait.
type tooManyError struct{ error }
