package origin

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"time"
)

// Balance is how a server is chosen among those that are fit.
type Balance int

// All of them heed weights.
const (
	RoundRobin    Balance = iota // smooth: turns of a heavy server are spread out, as nginx does it
	LeastRequests                // of two that are drawn by weight, the one with fewer requests under way for its weight
	Random
	Hash // rendezvous hashing of the key: a server that comes or goes moves only its own share of the keys
)

// ParseBalance reads a balance of the fleet file; "" means round-robin.
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
	return 0, fmt.Errorf("%q is unknown: want round-robin, least-requests, random or hash", s)
}

// How fit a server is for the next request, best first.
const (
	fitPrimary      = iota // a primary that is up, or any in a panic
	fitSilent              // a primary that is up but answers nothing at the moment
	fitBackup              // a backup that is up
	fitSilentBackup        // a backup that is up but silent
	fitSuspect             // looks unhealthy, but takes connections
	fitUnreachable         // takes no connections; one request at a time may try it
	fitNone
)

// isSilent reports whether others are to be asked rather than a server that answers nothing. One
// that relays may wait for the origin, which would be as slow for the others; its connections are
// asked whether it is there.
func (p *Pool) isSilent(b *backend, now time.Time) bool {
	return !p.Relays && b.silent(now, max(min(time.Second, p.FirstByteTimeout/4), 4*b.latency))
}

// leftTime is how long a server is taken as silent, or until it answers, after somebody left whom
// it had kept waiting.
const abandonedTime = 5 * time.Second

// Answers reports whether there is a server that takes connections and does not keep those waiting
// who asked it.
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

// fitness tells how fit a server is. The caller holds mu.
func (p *Pool) fitness(b *backend, now time.Time) int {
	switch {
	case p.Relays && !b.up():
		return fitNone // the next tier does better
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

// pick chooses a server that was not tried yet for a request. If there is none among those that it
// would choose from it returns nil, and why: they have no room, or room is free: there is no
// server. The caller holds mu.
func (p *Pool) pick(now time.Time, a *Ask, tried uint64) (*backend, room) {
	best, fits, has := fitNone, uint64(0), free
	for i, b := range p.all {
		if tried&(1<<i) != 0 {
			continue
		}
		switch f := p.fitness(b, now); {
		case f < best:
			best, fits, has = f, 0, free
			fallthrough
		case f == best && f != fitNone:
			switch r := b.room(p, a); {
			case r == free, b.Self:
				fits |= 1 << i
			case has != shareUsed:
				has = r
			}
		}
	}
	if fits == 0 {
		return nil, has
	}
	if fits&(fits-1) == 0 {
		return p.all[bits.TrailingZeros64(fits)], free
	}
	if !p.Relays && a.Prefer > 0 && fits&(1<<(a.Prefer-1)) != 0 {
		return p.all[a.Prefer-1], free
	}
	switch p.Balance {
	case LeastRequests:
		return p.leastRequests(now, fits), free
	case Random:
		return p.draw(now, fits, 1)[0], free
	case Hash:
		return p.rendezvous(now, fits, a.hash), free
	}
	return p.nextInTurn(now, fits), free
}

// nextInTurn is smooth weighted round-robin: each gains its weight at every turn, and the one with
// the most is chosen and loses the sum of all.
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

// draw chooses n servers at random, by weight and independently; n is 1 or 2.
func (p *Pool) draw(now time.Time, fits uint64, n int) (drawn [2]*backend) {
	var upTo [maxServers]float64 // sums of the shares so far
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

// leastRequests is the power of two choices (Mitzenmacher 2001). Both are drawn by weight, and
// compared by what they have under way for their weight, so that shares are by weight at any load.
func (p *Pool) leastRequests(now time.Time, fits uint64) *backend {
	two := p.draw(now, fits, 2)
	a, b := two[0], two[1]
	if float64(b.inFlight)*a.share(now, p.SlowStart) < float64(a.inFlight)*b.share(now, p.SlowStart) {
		return b
	}
	return a
}

// rendezvous is weighted rendezvous hashing (Thaler and Ravishankar 1998; weights by Schindelhauer
// and Schomaker 2005): the most of share / -ln(u) wins, with u between 0 and 1 by the hash. Among
// equal shares that is the most of u.
func (p *Pool) rendezvous(now time.Time, fits, key uint64) *backend {
	var best *backend
	var bestShare, bestU float64
	for ; fits != 0; fits &= fits - 1 {
		b := p.all[bits.TrailingZeros64(fits)]
		u := (float64(mix(key^b.hash)>>11) + 0.5) / (1 << 53)
		share := b.share(now, p.SlowStart)
		wins := best == nil || u > bestU
		if best != nil && share != bestShare {
			wins = share*math.Log(bestU) < bestShare*math.Log(u)
		}
		if wins {
			best, bestShare, bestU = b, share, u
		}
	}
	return best
}

// mix spreads the bits of x over all of the result (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
