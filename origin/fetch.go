package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// errSilent is the failure of a server that answered nothing until the client left.
var errSilent = errors.New("no answer until the client left")

// ErrSelf is the outcome of a pick that fell on the caller itself.
var ErrSelf = errors.New("the caller itself is next")

// result is the outcome of one attempt.
type result struct {
	b    *backend
	resp *http.Response
	err  error
	sent bool // the server may have seen the request
}

// again says whether another server might do better: there is no answer, or one by which a server says that it can't now.
func (p *Pool) again(res result) bool {
	if res.err != nil {
		return true
	}
	s := res.resp.StatusCode
	return !p.Relays && (s == http.StatusBadGateway || s == http.StatusServiceUnavailable || s == http.StatusGatewayTimeout)
}

// drop gives up what came of an attempt.
func (r *result) drop() {
	if r.resp != nil {
		r.resp.Body.Close()
	}
}

// Fetch sends a request whose URL holds the target's path and query; scheme and host are the server's. key is what the hash balance goes by. The
// response's body is the caller's to close. The context that the request carries ends it, its body included. Errors are ErrBusy, ErrDown, ErrSelf, and what
// IsTimeout and Reason tell apart.
func (p *Pool) Fetch(r *http.Request, key string) (*http.Response, error) {
	hash := xxhash.Sum64String(key)
	b, err := p.acquire(r.Context(), hash)
	if err != nil {
		return nil, err
	}
	if b.Self {
		return nil, ErrSelf
	}
	if r.Body != nil && r.Body != http.NoBody {
		r = r.WithContext(r.Context())
		r.Body = io.NopCloser(r.Body) // an attempt that reached no server has not read it, and must not close it
	}
	results := make(chan result, 1)
	cancels := map[*backend]context.CancelCauseFunc{}
	launch := func(b *backend) {
		ctx, cancel := context.WithCancelCause(r.Context())
		cancels[b] = cancel
		go func() { results <- p.attempt(ctx, cancel, r, b) }()
	}
	launch(b)
	tried, attempts, pending := uint64(1)<<b.index, 1, 1
	more := func(free bool) bool { // sends it to another server, if there is one
		if attempts > p.Retries || r.Context().Err() != nil {
			return false
		}
		b := p.another(hash, tried, free)
		if b == nil {
			return false
		}
		tried |= 1 << b.index
		attempts++
		pending++
		launch(b)
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
			if !p.again(res) {
				best.drop()
				delete(cancels, res.b)
				for _, cancel := range cancels {
					cancel(nil)
				}
				p.abandon(results, pending)
				return res.resp, nil
			}
			if res.err != nil {
				errs = append(errs, &ServerError{res.err, p, res.b})
			} else {
				best.drop()
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

// another takes a place at a server that was not tried, if one has room and the budget allows it. What is free needs no budget.
func (p *Pool) another(key, tried uint64, free bool) *backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	b, _ := p.pick(now, key, tried)
	if b == nil || b.Self || !free && !p.budget.take(now) {
		return nil
	}
	p.occupy(b, now)
	return b
}

// abandon gives up the attempts that are still pending.
func (p *Pool) abandon(results <-chan result, pending int) {
	if pending == 0 {
		return
	}
	go func() { // ends when the attempts do, which were canceled
		for range pending {
			res := <-results
			res.drop()
		}
	}()
}

// attempt sends a request to a server, within a context of its own. The place at the server is given back when the response's body ends.
func (p *Pool) attempt(ctx context.Context, cancel context.CancelCauseFunc, r *http.Request, b *backend) result {
	sent := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			sent = true
			if c.Reused {
				p.count(&b.counts.Reused)
			}
		},
	})
	out := p.request(r.WithContext(ctx), b)
	sending := p.watchSending(out, cancel)
	began := time.Now()
	resp, err := b.transport.Load().RoundTrip(out)
	sending.end()
	now := time.Now()
	p.mu.Lock()
	quiet := p.isSilent(b, now) && !b.waitingSince.After(began) // it answered nobody all the time
	b.waiting--
	b.trial = false
	switch {
	case err != nil && sending.stalled.Load():
		err = errStalled
		p.failed(b, now, err, false, false)
	case err != nil && ctx.Err() != nil: // nobody waits for it any more, which is no fault of the server's, unless it is silent
		if quiet {
			p.failed(b, now, errSilent, false, false)
		}
	case err != nil && p.Relays && sent && IsTimeout(err): // it may wait for the origin
	case err != nil:
		// A server that answered nothing at all while a request timed out has no slow page, it hangs.
		p.failed(b, now, err, refuses(err, sent), IsTimeout(err) && !b.waitingSince.After(began))
	case resp.StatusCode >= 500 && !p.Relays:
		b.waitingSince = now
		p.failed(b, now, fmt.Errorf("%w %d", errAnswer, resp.StatusCode), false, false)
	default:
		b.waitingSince = now
		b.refusing = false
		b.latency += (now.Sub(began) - b.latency) / 8
		b.http2 = resp.ProtoMajor == 2
		if resp.Body == http.NoBody || resp.StatusCode == http.StatusSwitchingProtocols {
			p.succeeded(b, began, now)
		}
	}
	p.mu.Unlock()
	if err != nil {
		cancel(nil)
		p.release(b)
		return result{b: b, err: err, sent: sent}
	}
	resp.Body = p.newBody(ctx, cancel, resp, b, began)
	return result{b: b, resp: resp, sent: true}
}

// sending is a request's body whose server has to go on taking it.
type sending struct {
	io.ReadCloser
	timer   *time.Timer
	wait    time.Duration
	stalled atomic.Bool
}

// watchSending puts itself in the place of a request's body, if there is one. Where a server takes nothing for too long, as by HTTP/2 when it gives no window, it cancels. How
// long the client takes to send is not the server's fault.
func (p *Pool) watchSending(r *http.Request, cancel context.CancelCauseFunc) *sending {
	s := &sending{ReadCloser: r.Body, wait: p.BetweenBytesTimeout}
	if r.Body == nil || r.Body == http.NoBody {
		return s
	}
	s.timer = time.AfterFunc(time.Hour, func() {
		s.stalled.Store(true)
		cancel(errStalled)
	})
	s.timer.Stop()
	r.Body = s
	return s
}

// Read reads on. The time until the next Read is the server's.
func (s *sending) Read(b []byte) (int, error) {
	s.timer.Stop()
	n, err := s.ReadCloser.Read(b)
	if err == nil {
		s.timer.Reset(s.wait)
	}
	return n, err
}

// Close ends the body.
func (s *sending) Close() error {
	s.timer.Stop()
	return s.ReadCloser.Close()
}

// end ends the watch: there is an answer, or none will come.
func (s *sending) end() {
	if s.timer != nil {
		s.timer.Stop()
	}
}
