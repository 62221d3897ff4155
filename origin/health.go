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
	"net/url"
	"time"
)

// Health configures the probes of a pool's servers. A server counts as healthy until its probes
// fail.
type Health struct {
	Path           string        // path and query to GET; "" means /
	Interval       time.Duration // between probes, shortened at random by up to a fifth; 0 means 5 s
	Timeout        time.Duration // for connecting and answering; 0 means 2 s
	UnhealthyAfter int           // failed probes in a row that mark a server down; 0 means 3
	HealthyAfter   int           // good probes in a row that mark it up again; 0 means 2
	// Host is the Host of probes if requests keep the client's Host. "" means the server's host.
	Host   string
	Status int    // expected status; 0 means any from 200 to 399
	Match  string // text that the body has in its first 64 KiB; "" means any body
}

// maxProbeBody is the maximum number of bytes of a probe's response body that are read.
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

// probe probes b at intervals until ctx ends. Each probe opens a new connection, because the next
// client may need one.
func (p *Pool) probe(ctx context.Context, b *backend) {
	for {
		t := p.newTransport(b, false)
		refused, err := p.probeOnce(ctx, b, t)
		t.close()
		if ctx.Err() != nil {
			return
		}
		p.recordProbe(b, time.Now(), err, refused)
		// The jitter only shortens the interval, so a change is noticed within one interval.
		wait := time.Duration((0.8 + 0.2*rand.Float64()) * float64(p.Health.Interval))
		if sleep(ctx, wait/maxProbeSpeedup, nil) {
			sleep(ctx, wait-wait/maxProbeSpeedup, b.probeSoon)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// maxProbeSpeedup limits how often requests that fail can bring probes forward: probes are at least
// a fifth of the interval apart.
const maxProbeSpeedup = 5

// sleep waits for d, or until early receives a value. It returns false if ctx ended.
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

// errProbe means that a probe got a response that Health does not accept.
var errProbe = errors.New("health check answered")

// probeOnce sends one probe. An error says why the server is unhealthy. refused means that it took
// no connection.
func (p *Pool) probeOnce(ctx context.Context, b *backend, t *transport) (refused bool, err error) {
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
	to := &probeProgress{}
	r := &http.Request{
		Method: http.MethodGet, URL: target, Host: host, Header: http.Header{"User-Agent": {"kaiku-health"}},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	out, err := p.request(ctx, r, b)
	if err != nil {
		return false, err
	}
	resp, err := t.roundTrip(out, to)
	if err != nil {
		return refuses(err, to.hasConnected), err
	}
	defer resp.Body.Close()
	if p.S3 != nil {
		if err := p.S3.clean(resp, time.Now()); err != nil {
			return false, err
		}
	}
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

// recordProbe records the outcome of a probe.
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
		b.failing = false // refused connections and the certificate were the only fault
	}
	b.refusing = refused
	if err == nil {
		b.abandonedAt = time.Time{}
		if b.waiting > 0 {
			b.lastHeardAt = now // the server does not hang, even if requests still wait for it
		}
	}
	if (err != nil) == b.down {
		b.contraryProbes = 0
		p.serveQueue(now) // a server that takes connections again gets a trial request
		return
	}
	if b.contraryProbes++; b.contraryProbes < limit {
		return
	}
	wasUp := b.up()
	b.contraryProbes, b.down = 0, err != nil
	p.stateChanged(b, wasUp, now)
}

// recordError remembers the last error of b.
func (p *Pool) recordError(b *backend, now time.Time, err error) {
	b.lastErr, b.lastErrAt = err, now
	p.lastServerErr = &ServerError{err, p, b}
}

// failureLimit is how many requests in a row must fail before a server is ejected.
const failureLimit = 3

// The first ejection lasts for the probe interval, or firstPause without probes. Each further
// ejection that follows soon lasts twice as long, up to maxPause.
const (
	firstPause = 5 * time.Second
	maxPause   = 5 * time.Minute
)

var errStatus = errors.New("server error")

// succeeded records the end of a response to a request that was sent at sent. If that was after the
// server began to fail, the server is no longer failing. If that was after it was ejected, the
// ejection ends. The caller holds mu.
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

// failed records a failed request. refused means that the server took no connection. hangs means
// that it answered no request meanwhile. proven means that the failure is the server's own,
// whatever the request was. The caller holds mu.
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

// markFailing marks the server as failing.
func (b *backend) markFailing(now time.Time) {
	if !b.failing {
		b.failing, b.failingAt = true, now
	}
}

// requestProbe brings the next probe forward.
func (b *backend) requestProbe() {
	select {
	case b.probeSoon <- struct{}{}:
	default:
	}
}

// eject stops sending requests to b for a while. The caller holds mu and has checked that b is not
// the last server.
func (p *Pool) eject(b *backend, now time.Time) {
	wasUp := b.up()
	pause := firstPause
	if p.Health != nil {
		pause = p.Health.Interval
	}
	// A server that was stable since the last ejection begins with the shortest pause again.
	if b.ejectedFor > 0 && now.Sub(b.recoveredAt) > 4*b.ejectedFor {
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

// isLast reports whether no other server is up. The last server is never ejected. Edges may all be
// ejected, because Route falls back to the next tier.
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

// readmit ends an ejection. One more failure ejects the server again, unless a request succeeds
// before.
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

// stateChanged updates slow start, panic mode and the queue after up of b may have changed. wasUp
// is the state before. The caller holds mu.
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
	// A pool with backups panics only while some primary is up; without any, the backups take over.
	// Edges never panic, because Route falls back to the next tier.
	panics := !p.Relays && up*2 < primaries && (up > 0 || spares == 0)
	if panics != p.panic {
		p.panic = panics
		if primaries == 1 {
			// logChange logs the state of the only server
		} else if panics {
			p.Log.Warn("most origin servers look unhealthy: requests go to every server that accepts connections",
				"site", p.Name, "healthy", up, "servers", primaries)
		} else {
			p.Log.Info("enough origin servers are healthy again", "site", p.Name, "healthy", up, "servers", primaries)
		}
	}
	p.serveQueue(now)
}

// The log gets at most logLimit lines about one server in each logWindow, so that a server that
// flaps can't flood it.
const (
	logLimit  = 6
	logWindow = time.Minute
)

// startGrace is how long an edge may take to start before the log calls it down.
const startGrace = 20 * time.Second

// logChange counts and logs a change between healthy and not. A change over logLimit is logged
// later, if it still holds then. The caller holds mu.
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
		return // the edge may be starting; a later probe logs it if it stays down
	}
	b.logged.unhealthy = ill
	b.logged.lines++
	if !ill {
		p.Log.Info("origin server is up again", "site", p.Name, "server", b.label(),
			"after", now.Sub(b.unhealthySince).Round(time.Millisecond))
		return
	}
	f := p.lastFailure(b)
	attrs := []any{"site", p.Name, "server", b.label(), "state", b.state(1), "error", f.Error}
	if f.Hint != "" {
		attrs = append(attrs, "hint", f.Hint)
	}
	p.Log.Warn("origin server is down", attrs...)
}
