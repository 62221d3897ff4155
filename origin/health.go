package origin

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"time"
)

// Health is how servers are probed. A server begins as healthy.
type Health struct {
	Path           string        // and query; "" means /
	Interval       time.Duration // between probes of a server, up to a fifth less; 0 means 5 s
	Timeout        time.Duration // for connection and answer; 0 means 2 s
	UnhealthyAfter int           // failed probes in a row; 0 means 3
	HealthyAfter   int           // good probes in a row; 0 means 2
	Host           string        // Host of probes where requests have that of the client; "" means the server's
	Status         int           // that is good; 0 means 200 to 399
	Match          string        // that the first 64 KiB of the body have to contain; "" means anything
}

// maxProbeBody is how much of a probe's answer is read, in bytes.
const maxProbeBody = 64 << 10

func (h Health) withDefaults() Health {
	if h.Path == "" {
		h.Path = "/"
	}
	if h.Interval == 0 {
		h.Interval = 5 * time.Second
	}
	if h.Timeout == 0 {
		h.Timeout = 2 * time.Second
	}
	h.UnhealthyAfter = max(h.UnhealthyAfter, 0)
	if h.UnhealthyAfter == 0 {
		h.UnhealthyAfter = 3
	}
	if h.HealthyAfter <= 0 {
		h.HealthyAfter = 2
	}
	return h
}

// probe asks a server again and again how it is, until ctx ends. Each probe has a connection of its
// own, as the next client may need one.
func (p *Pool) probe(ctx context.Context, b *backend) {
	for {
		transport := p.newTransport(b, false)
		transport.DisableKeepAlives = true
		refused, err := p.probeOnce(ctx, b, transport)
		if ctx.Err() != nil {
			return
		}
		p.recordProbe(b, time.Now(), err, refused)
		// The jitter only shortens the interval, so that it bounds how long a change goes
		// unnoticed.
		wait := time.Duration((0.8 + 0.2*rand.Float64()) * float64(p.Health.Interval))
		if sleep(ctx, wait/maxProbeSpeedup, nil) {
			sleep(ctx, wait-wait/maxProbeSpeedup, b.probeSoon)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// hurryShare is how many times as often a server is probed at most while requests fail at it.
const maxProbeSpeedup = 5

// pause waits for a while, or until early has something. It reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-early:
	case <-ctx.Done():
		return false
	}
	return true
}

// errProbe is an answer that is not the one that Health wants.
var errProbe = errors.New("health check answered")

// ask makes one probe. An error says that the server looks unhealthy, and why; refused that it took
// no connection.
func (p *Pool) probeOnce(ctx context.Context, b *backend, transport http.RoundTripper) (refused bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.Health.Timeout)
	defer cancel()
	target, err := url.Parse(p.Health.Path)
	if err != nil {
		return false, fmt.Errorf("health path: %w", err)
	}
	host := p.Health.Host
	if host == "" {
		host = b.URL.Host
	}
	connected := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }})
	r := (&http.Request{Method: http.MethodGet, URL: target, Host: host, Header: http.Header{"User-Agent": {"kaiku-health"}},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	resp, err := transport.RoundTrip(p.request(r, b))
	if err != nil {
		return refuses(err, connected), err
	}
	defer resp.Body.Close()
	switch {
	case p.Health.Status != 0 && resp.StatusCode != p.Health.Status:
		return false, fmt.Errorf("%w with %d, want %d", errProbe, resp.StatusCode, p.Health.Status)
	case p.Health.Status == 0 && (resp.StatusCode < 200 || resp.StatusCode > 399):
		return false, fmt.Errorf("%w with %d", errProbe, resp.StatusCode)
	case p.Health.Match == "":
		return false, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody))
	if err != nil {
		return false, err
	}
	if !bytes.Contains(body, []byte(p.Health.Match)) {
		return false, fmt.Errorf("%w without %q in its body", errProbe, p.Health.Match)
	}
	return false, nil
}

// probed takes the outcome of a probe.
func (p *Pool) recordProbe(b *backend, now time.Time, err error, refused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		b.everHealthy = b.everHealthy || err == nil && !b.down
		p.logChange(b, now)
	}()
	b.counts.Probes++
	limit := p.Health.HealthyAfter
	if err != nil {
		b.counts.ProbesBad++
		limit = p.Health.UnhealthyAfter
		p.recordError(b, now, err)
	} else if b.refusing || errors.As(b.lastErr, new(*tls.CertificateVerificationError)) {
		b.failing = false // it takes connections again, which was all that was wrong
	}
	b.refusing = refused
	if err == nil {
		b.abandonedAt = time.Time{}
		if b.waiting > 0 {
			b.lastHeardAt = now // it does not hang, whatever requests wait for
		}
	}
	if (err != nil) == b.down {
		b.contraryProbes = 0
		p.serveQueue(now) // one that takes connections again may be tried
		return
	}
	if b.contraryProbes++; b.contraryProbes < limit {
		return
	}
	wasUp := b.up()
	b.contraryProbes, b.down = 0, err != nil
	p.stateChanged(b, wasUp, now)
}

// blame remembers a failure of a server.
func (p *Pool) recordError(b *backend, now time.Time, err error) {
	b.lastErr, b.lastErrAt = err, now
	p.lastServerErr = &ServerError{err, p, b}
}

// failureLimit is how many requests in a row a server may fail before it is ejected.
const failureLimit = 3

// Pauses of an ejection: the first is the interval of probes, or firstPause without any; each that
// follows soon is twice as long as the one before.
const (
	firstPause = 5 * time.Second
	maxPause   = 5 * time.Minute
)

var errStatus = errors.New("server error")

// succeeded takes the end of a response to a request that was sent at a time. It ends what was
// wrong; a server that is ejected and was tried all the same, as there was none better, is back at
// once.
func (p *Pool) succeeded(b *backend, sent, now time.Time) {
	b.failures, b.refusing, b.everHealthy = 0, false, true
	if b.failing && !sent.Before(b.failingAt) {
		b.failing = false
	}
	if b.ejected && sent.After(b.ejectedAt) && !p.closed {
		wasUp := b.up()
		b.readmitTimer.Stop()
		b.ejected = false
		p.stateChanged(b, wasUp, now)
	}
	p.logChange(b, now)
}

// failed takes the failure of a request. proven says that it is the server's own, whatever the
// request is; see prove.
func (p *Pool) failed(b *backend, now time.Time, err error, refused, hangs, proven bool) {
	b.failures++
	p.recordError(b, now, err)
	b.refusing = refused
	b.counts.Failures[Reason(err)]++
	if p.closed {
		return
	}
	if b.failures >= failureLimit {
		b.markFailing(now)
		b.requestProbe()
	}
	if proven {
		p.confirmFailure(b, now, hangs)
	}
	p.logChange(b, now)
}

// fail has the server look as one that requests fail at.
func (b *backend) markFailing(now time.Time) {
	if !b.failing {
		b.failing, b.failingAt = true, now
	}
}

// hurry has the server probed soon.
func (b *backend) requestProbe() {
	select {
	case b.probeSoon <- struct{}{}:
	default:
	}
}

// eject gives a server no requests for a while, if there are others.
func (p *Pool) eject(b *backend, now time.Time) {
	wasUp := b.up()
	pause := firstPause
	if p.Health != nil {
		pause = p.Health.Interval
	}
	if b.ejectedFor > 0 && now.Sub(b.recoveredAt) > 4*b.ejectedFor { // it was well for long
		b.recentEjections = 0
	}
	for range b.recentEjections {
		pause = min(2*pause, maxPause)
	}
	b.recentEjections++
	b.ejectedFor = pause
	b.ejected, b.ejectedAt, b.failures = true, now, 0
	b.counts.Ejections++
	b.readmitTimer = time.AfterFunc(pause, func() { p.readmit(b) })
	p.stateChanged(b, wasUp, now)
}

// isLast reports whether no other server is up, so that b may not be ejected. With edges there is a
// next tier in place of the last.
func (p *Pool) isLast(b *backend) bool {
	if p.Relays {
		return false
	}
	for _, o := range p.all {
		if o != b && o.up() {
			return false
		}
	}
	return true
}

// readmit ends an ejection. The next failure is one too many again, unless it does well before.
func (p *Pool) readmit(b *backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !b.ejected || p.closed {
		return
	}
	now := time.Now()
	wasUp := b.up()
	b.ejected, b.failures = false, failureLimit-1
	p.stateChanged(b, wasUp, now)
	p.logChange(b, now)
}

// changed does what follows when the look of a server may have changed. The caller holds mu.
func (p *Pool) stateChanged(b *backend, wasUp bool, now time.Time) {
	if !wasUp && b.up() {
		b.recoveredAt = now
	}
	primaries, up, spares := 0, 0, 0
	for _, o := range p.all {
		switch {
		case o.Backup && o.up():
			spares++
		case !o.Backup:
			primaries++
			if o.up() {
				up++
			}
		}
	}
	// With backups there is no need to panic before the last primary, and then it is their turn.
	// Edges have a next tier.
	panics := !p.Relays && up*2 < primaries && (up > 0 || spares == 0)
	if panics != p.panic {
		p.panic = panics
		if primaries == 1 {
			// of whom tell says all
		} else if panics {
			p.Log.Warn("most origin servers look unhealthy: all that take connections are used", "site", p.Name, "healthy", up, "servers", primaries)
		} else {
			p.Log.Info("enough origin servers look healthy again", "site", p.Name, "healthy", up, "servers", primaries)
		}
	}
	p.serveQueue(now)
}

// tellLimit is how many lines of a server's health the log gets in tellTime. One that fails every
// other request changes with each.
const (
	logLimit  = 6
	logWindow = time.Minute
)

// startTime is how long an edge of the fleet may take to start.
const startGrace = 20 * time.Second

// tell counts a change of a server's health, and logs it. What is over the limit is logged at the
// next occasion, if it is still news. The caller holds mu.
func (p *Pool) logChange(b *backend, now time.Time) {
	ill := !b.healthy()
	if ill != b.wasUnhealthy {
		b.wasUnhealthy = ill
		b.counts.Changes++
		if ill {
			b.unhealthySince = now
		}
	}
	if now.Sub(b.logged.windowStart) > logWindow {
		b.logged.windowStart, b.logged.lines = now, 0
	}
	if ill == b.logged.unhealthy || b.logged.lines >= logLimit {
		return
	}
	if ill && p.Relays && !b.everHealthy && now.Sub(p.started) < startGrace {
		return // an edge that starts along with this one; a later probe tells if it does not come
	}
	b.logged.unhealthy = ill
	b.logged.lines++
	if !ill {
		p.Log.Info("origin server is up again", "site", p.Name, "server", b.label(), "after", now.Sub(b.unhealthySince).Round(time.Millisecond))
		return
	}
	f := p.lastFailure(b)
	attrs := []any{"site", p.Name, "server", b.label(), "state", b.state(1), "error", f.Error}
	if f.Hint != "" {
		attrs = append(attrs, "hint", f.Hint)
	}
	p.Log.Warn("origin server is down", attrs...)
}
