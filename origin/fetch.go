package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/cespare/xxhash/v2"
)

// ErrSelf is returned by Fetch when the chosen server is the caller itself; see Server.Self.
var ErrSelf = errors.New("the caller itself is next")

// result is the outcome of one attempt to send a request.
type result struct {
	b    *backend
	resp *http.Response
	err  error
	sent bool // the server may have received the request

	// unproven is a failure that another server's response may prove to be this server's own, or
	// nil.
	unproven *unprovenFailure
	// A server that fails often answered with an error, so another server gets the request too.
	needsProof bool
}

// retryElsewhere reports whether another server should get the request: the attempt failed by no
// fault of the client, the status is 502, 503 or 504, the caller does not accept the response, or
// the failure needs proof.
func (p *Pool) retryElsewhere(o *FetchOptions, res result) bool {
	if res.err != nil {
		return !errors.As(res.err, new(*RequestError))
	}
	if p.Relays {
		return false
	}
	s := res.resp.StatusCode
	return res.needsProof ||
		s == http.StatusBadGateway || s == http.StatusServiceUnavailable || s == http.StatusGatewayTimeout ||
		o.Accept != nil && !o.Accept(res.resp)
}

// discard closes the body of a response that is not used.
func (r *result) discard() {
	if r.resp != nil {
		r.resp.Body.Close()
	}
}

// Fetch sends r to a server of the pool and returns the response. The path and query of r.URL are
// sent; scheme and host are replaced by the server's. Fetch waits in the queue if no server has a
// free place, and retries as the package comment describes.
//
// The caller closes the response's body. When the context of r ends, the body ends too. Errors are
// or wrap ErrBusy, ErrShare, ErrDown, ErrSelf, a RequestError or a ServerError; Reason and
// IsTimeout classify them.
func (p *Pool) Fetch(r *http.Request, options FetchOptions) (*http.Response, error) {
	o := options.forRequest(r, xxhash.Sum64String(options.Key))
	first, err := p.acquire(r.Context(), o)
	if err != nil {
		return nil, err
	}
	if first.b.Self {
		return nil, ErrSelf
	}
	if o.body {
		r = r.WithContext(r.Context())
		r.Body = io.NopCloser(r.Body) // an attempt that reached no server must leave the body open
	}
	f := &attempts{p: p, r: r, options: o}
	if p.Hedge > 0 && retryable(r) {
		return f.hedged(first)
	}
	return f.inTurn(first)
}

// attempts holds the state of the attempts of one Fetch.
type attempts struct {
	p        *Pool
	r        *http.Request
	options  *FetchOptions
	tried    uint64 // bit set of the servers that had the request, by index
	launched int
	best     result             // the response to return if no attempt does better
	errs     []error            // of all attempts that failed
	unproven []*unprovenFailure // failures that no other server has disproved or confirmed yet
	proven   bool               // a server answered this request well
}

// inTurn sends the request to one server after the other, as long as that may help.
func (f *attempts) inTurn(pl *place) (*http.Response, error) {
	for pl != nil {
		ctx, cancel := context.WithCancelCause(f.r.Context())
		f.tried |= 1 << pl.b.index
		f.launched++
		res := f.p.attempt(ctx, cancel, f.r, f.options, pl)
		if f.isFinal(res) {
			f.best.discard()
			return res.resp, res.err
		}
		pl = f.retry(res)
	}
	return f.outcome()
}

// hedged sends the request to a second server too if the first takes long.
func (f *attempts) hedged(first *place) (*http.Response, error) {
	results, pending := make(chan result, 1), 0
	cancels := map[*backend]context.CancelCauseFunc{}
	launch := func(pl *place) {
		if pl == nil {
			return
		}
		f.tried |= 1 << pl.b.index
		f.launched++
		pending++
		ctx, cancel := context.WithCancelCause(f.r.Context())
		cancels[pl.b] = cancel
		go func() { results <- f.p.attempt(ctx, cancel, f.r, f.options, pl) }()
	}
	launch(first)
	t := time.NewTimer(f.p.Hedge)
	defer t.Stop()
	for pending > 0 {
		select {
		case <-t.C:
			if pl := f.another(false); pl != nil {
				f.p.count(&f.p.hedges)
				launch(pl)
			}
		case res := <-results:
			pending--
			if f.isFinal(res) {
				f.best.discard()
				delete(cancels, res.b)
				for _, cancel := range cancels {
					cancel(nil)
				}
				f.p.discardPending(results, pending)
				return res.resp, res.err
			}
			launch(f.retry(res))
		}
	}
	return f.outcome()
}

// isFinal reports whether Fetch returns the outcome of an attempt. It passes the outcome to judge.
// It keeps an outcome that is not final, in case no other attempt does better.
func (f *attempts) isFinal(res result) bool {
	f.judge(res)
	if !f.p.retryElsewhere(f.options, res) {
		return true
	}
	if res.err != nil {
		f.errs = append(f.errs, &ServerError{res.err, f.p, res.b})
	} else {
		f.best.discard()
		f.best = res
	}
	return false
}

// retry reserves a place at another server after an attempt that was not final. It returns nil if
// there is none or the request may not be sent again.
func (f *attempts) retry(res result) *place {
	if !retryable(f.r) && res.sent {
		return nil
	}
	pl := f.another(!res.sent)
	if pl != nil {
		f.p.count(&f.p.retries)
	}
	return pl
}

// another reserves a place at a server that has not had the request. free means that the retry
// costs no budget.
func (f *attempts) another(free bool) *place {
	if f.launched > f.p.Retries || f.r.Context().Err() != nil {
		return nil
	}
	return f.p.acquireAnother(f.options, f.tried, free)
}

// outcome returns the result of a Fetch without a final attempt: the best response, or else the
// errors of all attempts.
func (f *attempts) outcome() (*http.Response, error) {
	if f.best.resp != nil {
		return f.best.resp, nil
	}
	return nil, errors.Join(f.errs...)
}

// judge uses the outcome of an attempt to tell whose fault earlier failures were.
func (f *attempts) judge(res result) {
	if res.unproven != nil {
		f.unproven = append(f.unproven, res.unproven)
	}
	if f.proven = f.proven || res.err == nil && requestIsFine(res.resp); f.proven && len(f.unproven) > 0 {
		f.p.confirmFailures(f.unproven)
		f.unproven = nil
	}
}

// count increments a counter of the pool.
func (p *Pool) count(n *uint64) {
	p.mu.Lock()
	*n++
	p.mu.Unlock()
}

// acquireAnother reserves a place for a retry at a server that is not in tried. It returns nil if
// no server has one or the retry budget is spent. A free retry needs no budget.
func (p *Pool) acquireAnother(o *FetchOptions, tried uint64, free bool) *place {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	b, _ := p.pick(now, o, tried)
	if b == nil || b.Self || !free && !p.budget.take(now) {
		return nil
	}
	return p.occupy(b, o, now)
}

// discardPending waits in the background for attempts that were canceled, and closes their
// responses.
func (p *Pool) discardPending(results <-chan result, pending int) {
	if pending == 0 {
		return
	}
	go func() { // ends when the canceled attempts return
		for range pending {
			res := <-results
			res.discard()
		}
	}()
}

// attempt sends a request to the server of pl and returns the outcome. cancel cancels ctx. The
// place is released when the response's body ends, or at once if the attempt fails.
func (p *Pool) attempt(ctx context.Context, cancel context.CancelCauseFunc, r *http.Request, o *FetchOptions,
	pl *place) result {
	b := pl.b
	out, err := p.request(ctx, r, b)
	if err != nil {
		cancel(nil)
		p.release(pl)
		return result{b: b, err: err}
	}
	reqBody := p.watchRequestBody(out, pl, cancel)
	to := &sending{p: p, pl: pl, o: o, reqBody: reqBody}
	began := time.Now()
	resp, err := b.transport.Load().roundTrip(out, to)
	reqBody.stopWatch()
	if err == nil {
		to.used.learnKeepAlive(resp)
		b.spares.learnClose(resp)
		res := result{b: b, resp: resp, sent: true}
		res.unproven, res.needsProof = p.roundTripDone(pl, reqBody, resp, began)
		resp.Body = p.newBody(ctx, cancel, resp, pl, reqBody, began)
		if p.S3 != nil {
			return p.cleanS3(res)
		}
		return res
	}
	var fault error
	switch {
	case reqBody.stalled.Load():
		err = errStalled
	case ctx.Err() != nil:
	default:
		fault = requestFault(err, reqBody)
	}
	unproven := p.roundTripFailed(ctx, pl, err, fault, to.sent)
	cancel(nil)
	p.release(pl)
	return result{b: b, err: cmp.Or(fault, err), sent: to.sent, unproven: unproven}
}

// connected records that the transport got a connection for a request.
func (p *Pool) connected(pl *place, c *conn, reused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl.attach(c)
	b := pl.b
	switch {
	case reused:
		b.counts.Reused++
	case b.trial: // the connection is the proof; the client may take its time to send the request
		b.trial, b.refusing = false, false
		p.serveQueue(time.Now())
	}
}

// roundTripFailed records that a server did not answer a request. fault is not nil if the client
// caused that. roundTripFailed returns a failure that another server's response may confirm, or nil
// if there is nothing to confirm.
func (p *Pool) roundTripFailed(ctx context.Context, pl *place, err, fault error, sent bool) *unprovenFailure {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, b := time.Now(), pl.b
	silent := p.isSilent(b, now)
	awaiting, since := pl.endAwait()
	b.trial = false
	silent = silent && awaiting && !b.lastHeardAt.After(since) // no response header meanwhile
	switch {
	case fault != nil:
		p.clientFaults++
	case errors.Is(err, errStalled):
		p.failed(b, now, err, false, false, false)
	case ctx.Err() != nil: // the client left; this is no failure of the server
		if silent {
			b.abandonedAt = now
		}
	case p.Relays && sent && IsTimeout(err): // the edge may be waiting for the origin
	default:
		// If no request got a response header while this one timed out, the server hangs; otherwise
		// only this page is slow.
		hangs, before := IsTimeout(err) && !b.lastHeardAt.After(since), b.failedBeforeRequest(err, sent)
		p.failed(b, now, err, before && refuses(err, sent), hangs, before)
		if hangs && !before && !p.isLast(b) {
			b.abandonedAt = now // prefers other servers until this is known
		}
		if !before && pl.isAttributable(err) {
			return &unprovenFailure{b, now, hangs}
		}
	}
	return nil
}

// roundTripDone records the header of a response. If the status means failure, it returns the
// failure for comparison, as roundTripFailed does, and whether another server must get the request
// too.
func (p *Pool) roundTripDone(
	pl *place, reqBody *requestBody, resp *http.Response, began time.Time,
) (unproven *unprovenFailure, needsProof bool) {
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

// isFailure reports whether a status means that the server failed. Some 5xx statuses mean that the
// server does not support what the client asked for.
func isFailure(status int) bool {
	switch status {
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusLoopDetected, http.StatusNotExtended:
		return false
	}
	return status >= 500
}
