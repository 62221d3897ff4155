package origin

import (
	"errors"
	"net/http"
	"time"
)

// A client controls its request, and may find one that every server fails: a header that is too
// large for them, a page that answers 500, a body that ends early. So a failed request ejects a
// server only with one of two proofs:
//
//   - the server took no connection, before a byte of the request was sent and with a name that the
//     client did not choose; or
//   - another server answered the same request well within one Fetch.
//
// Other failures have weaker effects. They mark the server as failing, which is logged but does not
// change which requests it gets. They bring the next probe forward. They count among the failures
// in a row after which one proof is enough. From then on, a GET that the server answers with an
// error is also sent to another server, which proves where the fault lies.
//
// Some failures can't be compared and prove nothing: the request has a body or is not safe, retries
// are disabled or their budget is spent, the response fails in its body, or the connection carried
// several requests and any of them may have ended it. Counting failures by key or by client would
// not help, as an attacker can use as many of both as it likes.

// unprovenFailure is a failure that may be the server's or the request's fault.
type unprovenFailure struct {
	b    *backend
	at   time.Time
	hung bool // the server answered no request meanwhile
}

// failedBeforeRequest reports whether the attempt failed before the server received anything that
// the client controls. If the client chooses the SNI, a failed TLS handshake may be its fault.
func (b *backend) failedBeforeRequest(err error, sent bool) bool {
	return !sent && (isDial(err) || b.tlsName != "")
}

// requestIsFine reports whether resp shows that the request itself is fine.
func requestIsFine(resp *http.Response) bool {
	s := resp.StatusCode
	return s < http.StatusBadRequest || s == http.StatusNotFound || s == http.StatusGone
}

// streamError mirrors the unexported error of net/http for an HTTP/2 stream that was reset while
// its connection continues. errors.As matches by these fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "stream error" }

// isAttributable reports whether err was caused by this request alone and not by another request on
// the same connection. The caller holds mu.
func (pl *place) isAttributable(err error) bool {
	return pl.conn == nil || !pl.conn.wasShared || IsTimeout(err) || errors.As(err, new(streamError))
}

// attach records the HTTP/2 connection that carries the request. The caller holds mu.
func (pl *place) attach(c *conn) {
	pl.detach()
	if c == nil || !c.http2 || pl.released {
		return
	}
	pl.conn = c
	if c.users++; c.users > 1 {
		c.wasShared = true
	}
}

// detach records that the connection no longer carries the request. The caller holds mu.
func (pl *place) detach() {
	if c := pl.conn; c != nil {
		pl.conn = nil
		if c.users--; c.users == 0 {
			c.wasShared = false
		}
	}
}

// needsProof reports whether b has failed so often that another server must get the request too.
// The caller holds mu.
func (p *Pool) needsProof(b *backend) bool {
	return b.failures >= failureLimit && !b.ejected && !p.isLast(b)
}

// confirmFailures records that another server answered well the request that caused these failures.
func (p *Pool) confirmFailures(failures []*unprovenFailure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, f := range failures {
		if f.at.After(f.b.ejectedAt) { // an earlier failure is already counted in that ejection
			p.confirmFailure(f.b, now, f.hung)
			p.logChange(f.b, now)
		}
	}
}

// confirmFailure records that a failure is proven to be the fault of b. It ejects b if the failures
// in a row reached failureLimit or if b hangs, unless b is the last server. The caller holds mu.
func (p *Pool) confirmFailure(b *backend, now time.Time, hangs bool) {
	if p.closed || b.ejected || p.isLast(b) || b.failures < failureLimit && (!hangs || b.failures == 0) {
		return
	}
	p.eject(b, now)
	b.markFailing(now)
}
