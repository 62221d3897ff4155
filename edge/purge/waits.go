package purge

import (
	"fmt"
	"sync"
)

// A request that waits until all edges have applied a purge does so for minutes where one of them
// is away, and looks at all edges whenever one tells how far it is. So the requests that wait are
// bounded, and no token has all of the places. One for which there is none is refused before it has
// purged anything, so that it can be sent again as it is.
const (
	maxWaits     = 256
	maxWaitsEach = maxWaits / 4 // of one token
)

// waits counts the requests that wait, in all and by what their tokens are known by.
type waits struct {
	mu  sync.Mutex
	all int
	of  map[[32]byte]int
}

// begin counts one more, and returns what takes it back, or why there may be none.
func (p *waits) begin(g *Grant) (end func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.all >= maxWaits:
		return nil, &tooManyError{fmt.Errorf("%d requests wait for all edges already", p.all)}
	case p.of[g.token] >= maxWaitsEach:
		return nil, &tooManyError{fmt.Errorf("%d requests with this token wait for all edges already", p.of[g.token])}
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

// tooManyError says that a purge is refused because too many wait.
type tooManyError struct{ error }
