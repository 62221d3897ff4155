package origin

import (
	"errors"
	"net/http"
	"time"
)

// A visitor chooses what a request is, and may find one that every server fails: a header block
// that is too large for them, a page that answers 500, a body that ends early. So what requests
// meet ejects a server on one of two proofs alone:
//
//   - it takes no connection, before a byte of a request was sent, or a name that the client chose;
//   - another server did better with the same request, within one Fetch.
//
// All other failures count too: they make the server failing, which is told and changes nothing of
// what it gets, have it probed soon, and are part of the failures in a row after which one proof is
// enough. From then on a GET that it answers with an error is asked of another server, so that
// there is a proof, one way or the other. What can't be compared proves nothing: the request has a
// body or changes something, there are no retries or no budget for one, the response ends in its
// body, or the connection ended below several requests, any of which may have ended it. A table of
// keys or clients would prove no more, as a visitor has as many of both as it likes.

// lapse is a failure of a server that proves nothing yet.
type unprovenFailure struct {
	b    *backend
	at   time.Time
	hung bool // it answered nobody all the time
}

// isBefore reports whether a request failed before the server had anything of it. A server may have
// a certificate for some names only, so that the name must not be the client's choice.
func (b *backend) failedBeforeRequest(err error, sent bool) bool {
	return !sent && (isDial(err) || b.tlsName != "")
}

// better reports whether a response shows that there is nothing wrong with its request.
func requestIsFine(resp *http.Response) bool {
	s := resp.StatusCode
	return s < http.StatusBadRequest || s == http.StatusNotFound || s == http.StatusGone
}

// streamError is the type of net/http by which one stream of HTTP/2 ended, and not its connection.
// Its fields are what errors.As goes by.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "stream error" }

// isOwn reports whether a failure is of the request alone, and not of others on its connection. The
// caller holds mu.
func (pl *place) isAttributable(err error) bool {
	return pl.conn == nil || !pl.conn.wasShared || IsTimeout(err) || errors.As(err, new(streamError))
}

// use notes the connection that a request is sent on. The caller holds mu.
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

// leave notes that the connection has the request no more. The caller holds mu.
func (pl *place) detach() {
	if c := pl.conn; c != nil {
		pl.conn = nil
		if c.users--; c.users == 0 {
			c.wasShared = false
		}
	}
}

// isDoubted reports whether it is time to ask another server what this one failed. The caller holds
// mu.
func (p *Pool) needsProof(b *backend) bool {
	return b.failures >= failureLimit && !b.ejected && !p.isLast(b)
}

// compare takes the failures of a request with which another server did better.
func (p *Pool) confirmFailures(failures []*unprovenFailure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, f := range failures {
		if f.at.After(f.b.ejectedAt) { // else it counted then
			p.confirmFailure(f.b, now, f.hung)
			p.logChange(f.b, now)
		}
	}
}

// prove takes that a failure was a server's own. If it is one too many in a row, or if the server
// hangs, it ejects the server, unless it is the last one. The caller holds mu.
func (p *Pool) confirmFailure(b *backend, now time.Time, hangs bool) {
	if p.closed || b.ejected || p.isLast(b) || b.failures < failureLimit && (!hangs || b.failures == 0) {
		return
	}
	p.eject(b, now)
	b.markFailing(now)
}
