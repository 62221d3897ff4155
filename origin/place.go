package origin

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"time"
)

// Ask is what a request is to a pool.
type Ask struct {
	Key string // what the hash balance goes by
	// Client is the network whose share of the places the request takes. The zero Prefix has no
	// bound.
	Client netip.Prefix
	// Streams means that the response goes to the client as it comes, so that the client may hold
	// the place for long. Requests with a body stream too, and upgrades.
	Streams bool
	// Shared means that other clients wait for the response too. They must not wait for a place
	// until the client has one: where its share is used up, Fetch fails with ErrShare at once.
	Shared bool
	// Prefer is the server of the origin, as ServerOf tells it, that the request goes to, whatever
	// the balance, if that is among the fittest and has room. 0 means any.
	Prefer int
	// Accept, if it is not nil, reports whether a response will do. If not, another server of the
	// pool is asked; edges are not, as they ask further.
	Accept func(*http.Response) bool

	hash    uint64
	body    bool // the request has a body
	upgrade bool // it asks for a tunnel
}

// ErrShare is the failure of a Fetch for a client that has as many requests under way as one client
// may.
var ErrShare = errors.New("the client has as many requests under way as one client may")

// of completes a for a request.
func (a Ask) of(r *http.Request, hash uint64) *Ask {
	a.hash = hash
	a.body = r.Body != nil && r.Body != http.NoBody
	a.upgrade = r.Header.Get("Upgrade") != ""
	a.Streams = a.Streams || a.body || a.upgrade
	return &a
}

// leastForClient is what one client may have of a small limit.
const leastForClient = 16

// clientLimit is how much of a limit one client may have: a quarter, or leastForClient if that is
// more, but not the last quarter.
func clientLimit(limit int) int { return max(limit/4, min(leastForClient, limit-limit/4)) }

// streamLimit is how much of a limit requests may have that are held at the pace of clients. The
// last quarter is for what the cache fetches.
func streamLimit(limit int) int { return limit - limit/4 }

// tally counts what each client has.
type tally map[netip.Prefix]int

// add adds n, which may be negative, to what a client has.
func (t tally) add(client netip.Prefix, n int) {
	if !client.IsValid() {
		return
	}
	if t[client] += n; t[client] == 0 {
		delete(t, client)
	}
}

// isFull reports whether a client has its share of a limit.
func (t tally) isFull(client netip.Prefix, limit int) bool {
	return client.IsValid() && len(t) > 0 && t[client] >= clientLimit(limit)
}

// room reports whether there is a place.
type room int

const (
	free      room = iota
	shareUsed      // there is, but the client has its share
	full
)

// room reports whether a server has a place for one more request. The caller holds mu.
func (b *backend) room(p *Pool, a *Ask) room {
	// Over HTTP/1 each request has a connection, and so has each tunnel.
	connections := p.MaxConnections > 0 && !b.http2
	switch {
	case b.inFlight >= p.MaxRequests, a.Streams && b.streams >= streamLimit(p.MaxRequests), a.upgrade && b.tunnels >= p.MaxRequests,
		connections && (b.inFlight+b.tunnels >= p.MaxConnections || a.Streams && b.streams+b.tunnels >= streamLimit(p.MaxConnections)):
		return full
	case b.clients.isFull(a.Client, p.MaxRequests), a.upgrade && b.tunnelClients.isFull(a.Client, p.MaxRequests),
		connections && a.Client.IsValid() && b.clients[a.Client]+b.tunnelClients[a.Client] >= clientLimit(p.MaxConnections):
		return shareUsed
	}
	return free
}

// place is what a request holds at a server. An upgrade holds a place for a request and one for a
// tunnel, until it is known which of the two it is. What is below the line is guarded by Pool.mu.
type place struct {
	b      *backend
	client netip.Prefix

	requests      bool // it counts among the requests
	streams       bool // and among those of them that stream
	tunnel        bool // it counts among the tunnels
	awaiting      bool // the server has the whole request, and owes an answer
	answered      bool
	awaitingSince time.Time // when that began
	conn          *conn     // of HTTP/2, that has the request
	released      bool      // it was given back
}

// occupy takes a place at a server. The caller holds mu.
func (p *Pool) occupy(b *backend, a *Ask, now time.Time) *place {
	pl := &place{b: b, client: a.Client, requests: true, tunnel: a.upgrade, awaitingSince: now}
	b.inFlight++
	b.clients.add(a.Client, 1)
	if a.Streams {
		pl.markStreaming()
	}
	if a.upgrade {
		b.tunnels++
		b.tunnelClients.add(a.Client, 1)
	}
	if !a.body {
		pl.awaitResponse(now)
	}
	b.counts.Requests++
	b.trial = p.fitness(b, now) == fitUnreachable
	return pl
}

// stream has the place count among those that stream, if it does not. The caller holds mu.
func (pl *place) markStreaming() {
	if pl.requests && !pl.streams {
		pl.streams = true
		pl.b.streams++
	}
}

// owe notes that the server has the whole request. Before that it can't answer, which is no fault
// of its own. The caller holds mu.
func (pl *place) awaitResponse(now time.Time) {
	if pl.awaiting || pl.answered {
		return
	}
	pl.awaiting, pl.awaitingSince = true, now
	if pl.b.waiting++; pl.b.waiting == 1 {
		pl.b.lastHeardAt = now
	}
}

// answer notes that the server owes nothing any more. It reports whether it did, and since when.
// The caller holds mu.
func (pl *place) endAwait() (awaiting bool, since time.Time) {
	awaiting = pl.awaiting
	if awaiting {
		pl.awaiting = false
		pl.b.waiting--
	}
	pl.answered = true
	return awaiting, pl.awaitingSince
}

// endRequest gives back what the place counts among the requests. The caller holds mu.
func (pl *place) endRequest() {
	if !pl.requests {
		return
	}
	pl.requests = false
	pl.b.inFlight--
	pl.b.clients.add(pl.client, -1)
	if pl.streams {
		pl.streams = false
		pl.b.streams--
	}
}

// endTunnel gives back what the place counts among the tunnels. The caller holds mu.
func (pl *place) endTunnel() {
	if pl.tunnel {
		pl.tunnel = false
		pl.b.tunnels--
		pl.b.tunnelClients.add(pl.client, -1)
	}
}

// release gives a place at a server back, to who waits for one if there is anybody.
func (p *Pool) release(pl *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl.endAwait()
	pl.detach()
	pl.released = true
	pl.endRequest()
	pl.endTunnel()
	p.serveQueue(time.Now())
}

// bodyOf is the body of a response under what wraps it, which has to have a method Unwrap; nil if
// it is none of a Pool's.
func bodyOf(of io.Reader) *responseBody {
	for {
		switch b := of.(type) {
		case *responseBody:
			return b
		case interface{ Unwrap() io.ReadCloser }:
			of = b.Unwrap()
		default:
			return nil
		}
	}
}

// ServerOf tells servers of a pool apart: it is the place among them, from 1 on, of the one that
// the body of a response comes from; 0 if that is another edge.
func ServerOf(of io.Reader) int {
	if b := bodyOf(of); b != nil && !b.pool.Relays {
		return b.place.b.index + 1
	}
	return 0
}

// Stream has the body of a response count among those that stream, as it turned out that it can't
// be stored. It reports whether there was room for one more.
func Stream(of io.Reader) bool {
	b := bodyOf(of)
	if b == nil {
		return true
	}
	b.pool.mu.Lock()
	defer b.pool.mu.Unlock()
	b.place.markStreaming()
	return b.place.b.streams <= streamLimit(b.pool.MaxRequests)
}
