package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/cespare/xxhash/v2"
)

// ErrSelf is the outcome of a pick that fell on the caller itself.
var ErrSelf = errors.New("the caller itself is next")

// result is the outcome of one attempt.
type result struct {
	b    *backend
	resp *http.Response
	err  error
	sent bool // the server may have seen the request

	unproven   *unprovenFailure // nil if it did not fail, or if that is known to be its own fault or can't be compared
	needsProof bool             // it failed often, and another server is to tell whether that is its own fault
}

// again reports whether another server might do better: there is no answer, which is not the
// client's fault, one by which a server says that it can't now, or one that the caller doesn't
// accept.
func (p *Pool) retryElsewhere(a *Ask, res result) bool {
	if res.err != nil {
		return !errors.As(res.err, new(*RequestError))
	}
	if p.Relays {
		return false
	}
	s := res.resp.StatusCode
	return res.needsProof || s == http.StatusBadGateway || s == http.StatusServiceUnavailable || s == http.StatusGatewayTimeout || a.Accept != nil && !a.Accept(res.resp)
}

// drop gives up what came of an attempt.
func (r *result) discard() {
	if r.resp != nil {
		r.resp.Body.Close()
	}
}

// Fetch sends a request whose URL holds the target's path and query; scheme and host are the
// server's. The response's body is the caller's to close. The context that the request carries ends
// it, its body included. Errors are ErrBusy, ErrShare, ErrDown, ErrSelf, a RequestError, and what
// IsTimeout and Reason tell apart.
func (p *Pool) Fetch(r *http.Request, ask Ask) (*http.Response, error) {
	a := ask.of(r, xxhash.Sum64String(ask.Key))
	first, err := p.acquire(r.Context(), a)
	if err != nil {
		return nil, err
	}
	if first.b.Self {
		return nil, ErrSelf
	}
	if a.body {
		r = r.WithContext(r.Context())
		r.Body = io.NopCloser(r.Body) // an attempt that reached no server has not read it, and must not close it
	}
	results := make(chan result, 1)
	cancels := map[*backend]context.CancelCauseFunc{}
	launch := func(pl *place) {
		ctx, cancel := context.WithCancelCause(r.Context())
		cancels[pl.b] = cancel
		go func() { results <- p.attempt(ctx, cancel, r, pl) }()
	}
	launch(first)
	tried, attempts, pending := uint64(1)<<first.b.index, 1, 1
	more := func(free bool) bool { // sends it to another server, if there is one
		if attempts > p.Retries || r.Context().Err() != nil {
			return false
		}
		pl := p.acquireAnother(a, tried, free)
		if pl == nil {
			return false
		}
		tried |= 1 << pl.b.index
		attempts++
		pending++
		launch(pl)
		return true
	}
	var hedge <-chan time.Time
	if p.Hedge > 0 && retryable(r) {
		t := time.NewTimer(p.Hedge)
		defer t.Stop()
		hedge = t.C
	}
	var best result // the failure to tell of if nothing better comes
	var errs []error
	var unproven []*unprovenFailure // that prove nothing yet
	proven := false                 // a server did better
	for {
		select {
		case <-hedge:
			hedge = nil
			if more(false) {
				p.count(&p.hedges)
			}
			continue
		case res := <-results:
			pending--
			if res.unproven != nil {
				unproven = append(unproven, res.unproven)
			}
			if proven = proven || res.err == nil && requestIsFine(res.resp); proven {
				p.confirmFailures(unproven)
				unproven = nil
			}
			if !p.retryElsewhere(a, res) {
				best.discard()
				delete(cancels, res.b)
				for _, cancel := range cancels {
					cancel(nil)
				}
				p.discardPending(results, pending)
				return res.resp, res.err
			}
			if res.err != nil {
				errs = append(errs, &ServerError{res.err, p, res.b})
			} else {
				best.discard()
				best = res
			}
			if (retryable(r) || !res.sent) && more(!res.sent) {
				p.count(&p.retries)
			}
		}
		if pending == 0 {
			if best.resp != nil {
				return best.resp, nil
			}
			return nil, errors.Join(errs...)
		}
	}
}

// count adds one to a counter of the pool's.
func (p *Pool) count(n *uint64) {
	p.mu.Lock()
	*n++
	p.mu.Unlock()
}

// another takes a place at a server that was not tried, if one has room and the budget allows it.
// What is free needs no budget.
func (p *Pool) acquireAnother(a *Ask, tried uint64, free bool) *place {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	b, _ := p.pick(now, a, tried)
	if b == nil || b.Self || !free && !p.budget.take(now) {
		return nil
	}
	return p.occupy(b, a, now)
}

// abandon gives up the attempts that are still pending.
func (p *Pool) discardPending(results <-chan result, pending int) {
	if pending == 0 {
		return
	}
	go func() { // ends when the attempts do, which were canceled
		for range pending {
			res := <-results
			res.discard()
		}
	}()
}

// attempt sends a request to a server, within a context of its own. The place at the server is
// given back when the response's body ends.
func (p *Pool) attempt(ctx context.Context, cancel context.CancelCauseFunc, r *http.Request, pl *place) result {
	b := pl.b
	reachedTransport, sent := false, false
	var reqBody *requestBody
	var used *conn
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { reachedTransport = true },
		GotConn: func(c httptrace.GotConnInfo) {
			used = connOf(c.Conn)
			if sent = used.claim(c); sent {
				p.connected(pl, used, c.Reused)
			}
		},
		Got100Continue: func() { reqBody.wantBody() },
	})
	out := p.request(r.WithContext(ctx), b)
	reqBody = p.watchRequestBody(out, pl, cancel)
	began := time.Now()
	resp, err := b.transport.Load().RoundTrip(out)
	reqBody.stopWatch()
	if err == nil {
		used.learnKeepAlive(resp)
		b.spares.learnClose(resp)
		res := result{b: b, resp: resp, sent: true}
		res.unproven, res.needsProof = p.roundTripDone(pl, reqBody, resp, began)
		resp.Body = p.newBody(ctx, cancel, resp, pl, reqBody, began)
		return res
	}
	var fault error
	switch {
	case reqBody.stalled.Load():
		err = errStalled
	case ctx.Err() != nil:
	default:
		fault = requestFault(err, reachedTransport, reqBody)
	}
	unproven := p.roundTripFailed(ctx, pl, err, fault, sent)
	cancel(nil)
	p.release(pl)
	return result{b: b, err: cmp.Or(fault, err), sent: sent, unproven: unproven}
}

// connected notes that a server has a connection for a request.
func (p *Pool) connected(pl *place, c *conn, reused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl.attach(c)
	b := pl.b
	switch {
	case reused:
		b.counts.Reused++
	case b.trial: // that is what was to be found out: how long the client takes with the request does not matter
		b.trial, b.refusing = false, false
		p.serveQueue(time.Now())
	}
}

// unanswered notes that a server did not answer a request. fault is not nil if that is the fault of
// the request. What it returns waits for what other servers do with the request; nil if that tells
// nothing.
func (p *Pool) roundTripFailed(ctx context.Context, pl *place, err, fault error, sent bool) *unprovenFailure {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, b := time.Now(), pl.b
	silent := p.isSilent(b, now)
	awaiting, since := pl.endAwait()
	b.trial = false
	silent = silent && awaiting && !b.lastHeardAt.After(since) // it answered nobody all the time
	switch {
	case fault != nil:
		p.clientFaults++
	case errors.Is(err, errStalled):
		p.failed(b, now, err, false, false, false)
	case ctx.Err() != nil: // nobody waits for it any more, which is no failure
		if silent {
			b.abandonedAt = now
		}
	case p.Relays && sent && IsTimeout(err): // it may wait for the origin
	default:
		// A server that answered nothing at all while a request timed out has no slow page, it
		// hangs.
		hangs, before := IsTimeout(err) && !b.lastHeardAt.After(since), b.failedBeforeRequest(err, sent)
		p.failed(b, now, err, before && refuses(err, sent), hangs, before)
		if hangs && !before && !p.isLast(b) {
			b.abandonedAt = now // others are asked first until that is known
		}
		if !before && pl.isAttributable(err) {
			return &unprovenFailure{b, now, hangs}
		}
	}
	return nil
}

// answered notes the header block of a response. If that is one of a failure, it returns what
// unanswered does, and whether another server is to be asked too.
func (p *Pool) roundTripDone(pl *place, reqBody *requestBody, resp *http.Response, began time.Time) (unproven *unprovenFailure, needsProof bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, b := time.Now(), pl.b
	awaiting, since := pl.endAwait()
	b.trial, b.abandonedAt = false, time.Time{}
	b.lastHeardAt = now
	if resp.StatusCode == http.StatusSwitchingProtocols {
		pl.endRequest()
		p.serveQueue(now)
	} else if pl.tunnel {
		pl.endTunnel()
		p.serveQueue(now)
	}
	if isFailure(resp.StatusCode) && !p.Relays {
		if reqBody.clientFault() == nil {
			p.failed(b, now, fmt.Errorf("%w %d", errStatus, resp.StatusCode), false, false, false)
			return &unprovenFailure{b, now, false}, p.needsProof(b)
		}
		return nil, false
	}
	b.refusing = false
	if awaiting {
		b.latency += (now.Sub(since) - b.latency) / 8
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		p.succeeded(b, began, now)
		return nil, false
	}
	b.http2 = resp.ProtoMajor == 2
	if resp.Body == http.NoBody {
		p.succeeded(b, began, now)
	}
	return nil, false
}

// isFailure reports whether a status is that of a server that fails. Some of 500 and above say that
// it can't do what the client wants.
func isFailure(status int) bool {
	switch status {
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusLoopDetected, http.StatusNotExtended:
		return false
	}
	return status >= 500
}
