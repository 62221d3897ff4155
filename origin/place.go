package origin

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"time"
)

// FetchOptions are the options of Fetch.
type FetchOptions struct {
	Key string // hashed by the Hash balance
	// Mark and Origin are the values of KeyField and OriginField for other edges. "" means none.
	Mark, Origin string
	// Client is the client's network, for the limits of one client. The zero Prefix has no limit.
	Client netip.Prefix
	// Streams means that the response is passed to the client as it arrives, so that the client can
	// hold the place for long. Requests with a body and upgrades always count as such.
	Streams bool
	// Shared means that other clients wait for the same response. Such a request does not queue
	// while its own client has used its share: Fetch fails with ErrShare at once.
	Shared bool
	// Prefer is a server's number as ServerOf returns it. That server gets the request, whatever
	// the balance, if it is among the fittest and has a free place. 0 means no preference.
	Prefer int
	// Accept, if not nil, reports whether a response is acceptable. If it is not, Fetch tries
	// another server of the origin. Edges are not tried again, because they retry themselves.
	Accept func(*http.Response) bool
	// Interim, if not nil, is called for each interim response (RFC 9110, 15.2). It must not block.
	Interim func(status int, h http.Header)

	hash    uint64
	body    bool // the request has a body
	upgrade bool // the request has an Upgrade field
}

// ErrShare is returned by Fetch if the client already has as many concurrent requests as one client
// may.
var ErrShare = errors.New("the client has as many active requests as one client may have")

// forRequest returns a copy of o, completed with properties of r.
func (o FetchOptions) forRequest(r *http.Request, hash uint64) *FetchOptions {
	o.hash = hash
	o.body = r.Body != nil && r.Body != http.NoBody
	o.upgrade = upgrades(r)
	o.Streams = o.Streams || o.body || o.upgrade
	return &o
}

// leastForClient is how many places one client may always have, if the limit allows.
const leastForClient = 16

// clientLimit returns how much of a limit one client may use: a quarter, or leastForClient if that
// is more, but at most three quarters.
func clientLimit(limit int) int { return max(limit/4, min(leastForClient, limit-limit/4)) }

// streamLimit returns the part of a limit that requests may use if clients can hold them open. The
// last quarter is reserved for fetches into the cache.
func streamLimit(limit int) int { return limit - limit/4 }

// tally counts something for each client.
type tally map[netip.Prefix]int

// add adds n, which may be negative, to the count of client.
func (t tally) add(client netip.Prefix, n int) {
	if !client.IsValid() {
		return
	}
	if t[client] += n; t[client] == 0 {
		delete(t, client)
	}
}

// isFull reports whether client has used its share of limit.
func (t tally) isFull(client netip.Prefix, limit int) bool {
	return client.IsValid() && len(t) > 0 && t[client] >= clientLimit(limit)
}

// room is whether a server has a free place for a request, and if not, why.
type room int

const (
	roomFree      room = iota
	roomShareUsed      // places are free, but the client has used its share
	roomFull
)

// room reports whether b has a free place for one more request. The caller holds mu.
func (b *backend) room(p *Pool, o *FetchOptions) room {
	// Over HTTP/1 each request and each tunnel needs a connection.
	connections := p.MaxConnections > 0 && !b.http2
	switch {
	case b.inFlight >= p.MaxRequests,
		o.Streams && b.streams >= streamLimit(p.MaxRequests),
		o.upgrade && b.tunnels >= p.MaxRequests,
		connections && (b.inFlight+b.tunnels >= p.MaxConnections ||
			o.Streams && b.streams+b.tunnels >= streamLimit(p.MaxConnections)):
		return roomFull
	case b.clients.isFull(o.Client, p.MaxRequests), o.upgrade && b.tunnelClients.isFull(o.Client, p.MaxRequests),
		connections && o.Client.IsValid() &&
			b.clients[o.Client]+b.tunnelClients[o.Client] >= clientLimit(p.MaxConnections):
		return roomShareUsed
	}
	return roomFree
}

// place is the capacity that a request uses at a server. An upgrade uses capacity for a request and
// for a tunnel until its response shows which one it is. Pool.mu guards all fields from requests
// on.
type place struct {
	b      *backend
	client netip.Prefix

	requests      bool // counts among the requests
	streams       bool // counts among the requests that a client may hold open
	tunnel        bool // counts among the tunnels
	awaiting      bool // the request was sent in full and has no response header yet
	answered      bool
	awaitingSince time.Time // since when; the start of the request before that
	conn          *conn     // the HTTP/2 connection that carries the request
	released      bool      // release was called
}

// occupy reserves a place at b. The caller holds mu.
func (p *Pool) occupy(b *backend, o *FetchOptions, now time.Time) *place {
	pl := &place{b: b, client: o.Client, requests: true, tunnel: o.upgrade, awaitingSince: now}
	b.inFlight++
	b.clients.add(o.Client, 1)
	if o.Streams {
		pl.markStreaming()
	}
	if o.upgrade {
		b.tunnels++
		b.tunnelClients.add(o.Client, 1)
	}
	if !o.body {
		pl.awaitResponse(now)
	}
	b.counts.Requests++
	b.trial = p.fitness(b, now) == fitUnreachable
	return pl
}

// markStreaming makes the place count among the requests that a client may hold open. The caller
// holds mu.
func (pl *place) markStreaming() {
	if pl.requests && !pl.streams {
		pl.streams = true
		pl.b.streams++
	}
}

// awaitResponse records that the request was sent in full. Until then, silence of the server is not
// its fault. The caller holds mu.
func (pl *place) awaitResponse(now time.Time) {
	if pl.awaiting || pl.answered {
		return
	}
	pl.awaiting, pl.awaitingSince = true, now
	if pl.b.waiting++; pl.b.waiting == 1 {
		pl.b.lastHeardAt = now
	}
}

// endAwait records that no response is awaited any more. It reports whether one was, and since
// when. The caller holds mu.
func (pl *place) endAwait() (awaiting bool, since time.Time) {
	awaiting = pl.awaiting
	if awaiting {
		pl.awaiting = false
		pl.b.waiting--
	}
	pl.answered = true
	return awaiting, pl.awaitingSince
}

// endRequest frees the capacity for a request. The caller holds mu.
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

// endTunnel frees the capacity for a tunnel. The caller holds mu.
func (pl *place) endTunnel() {
	if pl.tunnel {
		pl.tunnel = false
		pl.b.tunnels--
		pl.b.tunnelClients.add(pl.client, -1)
	}
}

// release frees the place and serves the queue.
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

// bodyOf returns the responseBody inside of, which may be wrapped by readers with an Unwrap method.
// It returns nil if there is none.
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

// ServerOf returns the number of the origin server that a response body comes from, counted from 1.
// It returns 0 for the body of an edge.
func ServerOf(of io.Reader) int {
	if b := bodyOf(of); b != nil && !b.pool.Relays {
		return b.place.b.index + 1
	}
	return 0
}

// Arrived reports whether n bytes of a response body can be read at once. For at most wait, it
// waits for them. The response must have a Content-Length of at least n.
func Arrived(of io.Reader, n int64, wait time.Duration) bool {
	if n == 0 {
		return true
	}
	if b := bodyOf(of); b != nil {
		if x, ok := b.ReadCloser.(*http1Exchange); ok {
			return x.arrived(n, wait)
		}
	}
	return false
}

// Stream makes a response body count among the requests that a client may hold open, because the
// response turned out to be uncacheable. It reports whether the limit still allows that.
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
