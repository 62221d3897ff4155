package origin

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/rendezvous"
)

// Balance is the load-balancing method of a Pool.
type Balance int

// All methods honour weights.
const (
	RoundRobin Balance = iota // smooth weighted round-robin, as in nginx
	// LeastRequests draws two servers at random by weight, and chooses the one with fewer requests
	// per weight.
	LeastRequests
	Random
	// Hash is rendezvous hashing of the key. A server that is added or removed moves only its own
	// share of the keys.
	Hash
)

// ParseBalance parses a load-balancing method of the fleet file. "" means round-robin.
func ParseBalance(s string) (Balance, error) {
	switch s {
	case "", "round-robin":
		return RoundRobin, nil
	case "least-requests":
		return LeastRequests, nil
	case "random":
		return Random, nil
	case "hash":
		return Hash, nil
	}
	return 0, fmt.Errorf("unknown balance %q: want round-robin, least-requests, random or hash", s)
}

// The fitness of a server for the next request, best first.
const (
	fitPrimary      = iota // a primary that is up, or any primary in panic mode
	fitSilent              // a primary that is up but silent
	fitBackup              // a backup that is up
	fitSilentBackup        // a backup that is up but silent
	fitSuspect             // down or ejected, but takes connections
	fitUnreachable         // takes no connections; one request at a time tries it
	fitNone
)

// isSilent reports whether other servers should be preferred because b answers nothing at the
// moment. An edge is never silent in this sense: it may be waiting for the origin, and HTTP/2 pings
// detect an edge that hangs.
func (p *Pool) isSilent(b *backend, now time.Time) bool {
	return !p.Relays && b.silent(now, max(min(time.Second, p.FirstByteTimeout/4), 4*b.latency))
}

// abandonedTime is how long a server counts as silent after a client gave up waiting for it, unless
// it answers before.
const abandonedTime = 5 * time.Second

// Answers reports whether some server is up, or in use in panic mode, and is not silent.
func (p *Pool) Answers() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, b := range p.all {
		if f := p.fitness(b, now); f == fitPrimary || f == fitBackup {
			return true
		}
	}
	return false
}

// fitness returns the fitness of b at the given time. The caller holds mu.
func (p *Pool) fitness(b *backend, now time.Time) int {
	switch {
	case p.Relays && !b.up():
		return fitNone // Route falls back to the next tier
	case b.refusing && (!b.up() || b.failures >= failureLimit):
		if b.trial {
			return fitNone
		}
		return fitUnreachable
	case !b.up() && (b.Backup || !p.panic):
		return fitSuspect
	case p.isSilent(b, now), !b.abandonedAt.IsZero() && now.Sub(b.abandonedAt) < abandonedTime:
		if b.Backup {
			return fitSilentBackup
		}
		return fitSilent
	case b.Backup:
		return fitBackup
	}
	return fitPrimary
}

// pick chooses the fittest server with a free place for a request, except those in the bit set
// tried. If it returns no server, the room is the reason: roomFree means that no server is fit.
// Other values mean that the fittest servers have no place for this request. The caller holds mu.
func (p *Pool) pick(now time.Time, o *FetchOptions, tried uint64) (*backend, room) {
	best, fits, has := fitNone, uint64(0), roomFree
	for i, b := range p.all {
		if tried&(1<<i) != 0 {
			continue
		}
		switch f := p.fitness(b, now); {
		case f < best:
			best, fits, has = f, 0, roomFree
			fallthrough
		case f == best && f != fitNone:
			switch r := b.room(p, o); {
			case r == roomFree, b.Self:
				fits |= 1 << i
			case has != roomShareUsed:
				has = r
			}
		}
	}
	if fits == 0 {
		return nil, has
	}
	if fits&(fits-1) == 0 {
		return p.all[bits.TrailingZeros64(fits)], roomFree
	}
	if !p.Relays && o.Prefer > 0 && fits&(1<<(o.Prefer-1)) != 0 {
		return p.all[o.Prefer-1], roomFree
	}
	switch p.Balance {
	case LeastRequests:
		return p.leastRequests(now, fits), roomFree
	case Random:
		return p.draw(now, fits, 1)[0], roomFree
	case Hash:
		return p.ofKey(now, fits, o.hash), roomFree
	}
	return p.nextInTurn(now, fits), roomFree
}

// nextInTurn implements smooth weighted round-robin. In each turn every candidate gains its weight.
// The one with the highest current weight is chosen and loses the sum of all weights.
func (p *Pool) nextInTurn(now time.Time, fits uint64) *backend {
	var best *backend
	var sum float64
	for ; fits != 0; fits &= fits - 1 {
		b := p.all[bits.TrailingZeros64(fits)]
		w := b.share(now, p.SlowStart)
		b.current += w
		sum += w
		if best == nil || b.current > best.current {
			best = b
		}
	}
	best.current -= sum
	return best
}

// draw chooses n servers at random by weight, with replacement. n is 1 or 2.
func (p *Pool) draw(now time.Time, fits uint64, n int) (drawn [2]*backend) {
	var upTo [maxServers]float64 // cumulative shares
	var sum float64
	last := 0
	for f := fits; f != 0; f &= f - 1 {
		last = bits.TrailingZeros64(f)
		sum += p.all[last].share(now, p.SlowStart)
		upTo[last] = sum
	}
	for i := range n {
		at := rand.Float64() * sum
		for f := fits; ; f &= f - 1 {
			if b := bits.TrailingZeros64(f); at < upTo[b] || b == last {
				drawn[i] = p.all[b]
				break
			}
		}
	}
	return drawn
}

// leastRequests implements the power of two choices (Mitzenmacher 2001). It draws two servers by
// weight and takes the one with fewer requests per weight, so that load is proportional to weight.
func (p *Pool) leastRequests(now time.Time, fits uint64) *backend {
	two := p.draw(now, fits, 2)
	a, b := two[0], two[1]
	if float64(b.inFlight)*a.share(now, p.SlowStart) < float64(a.inFlight)*b.share(now, p.SlowStart) {
		return b
	}
	return a
}

// ofKey returns the server that a key belongs to, by rendezvous hashing.
func (p *Pool) ofKey(now time.Time, fits, key uint64) *backend {
	var best *backend
	var bestDraw, bestShare float64
	for ; fits != 0; fits &= fits - 1 {
		b := p.all[bits.TrailingZeros64(fits)]
		draw, share := rendezvous.Draw(key, b.hash), b.share(now, p.SlowStart)
		if best == nil || rendezvous.Beats(draw, share, bestDraw, bestShare) {
			best, bestDraw, bestShare = b, draw, share
		}
	}
	return best
}
