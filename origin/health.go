package origin

import (
	"bytes"
	"context"
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

// probe asks a server again and again how it is, until ctx ends. Each probe has a connection of its own, as the next client may need one.
func (p *Pool) probe(ctx context.Context, b *backend) {
	for {
		transport := p.newTransport(b, false)
		transport.DisableKeepAlives = true
		refused, err := p.ask(ctx, b, transport)
		if ctx.Err() != nil {
			return
		}
		p.probed(b, time.Now(), err, refused)
		// The jitter only shortens the interval, so that it bounds how long a change goes unnoticed.
		t := time.NewTimer(time.Duration((0.8 + 0.2*rand.Float64()) * float64(p.Health.Interval)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// ask makes one probe. An error says that the server looks unhealthy, and why; refused that it took no connection.
func (p *Pool) ask(ctx context.Context, b *backend, transport http.RoundTripper) (refused bool, err error) {
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
		return false, fmt.Errorf("probe answered with %d, want %d", resp.StatusCode, p.Health.Status)
	case p.Health.Status == 0 && (resp.StatusCode < 200 || resp.StatusCode > 399):
		return false, fmt.Errorf("probe answered with %d", resp.StatusCode)
	case p.Health.Match == "":
		return false, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody))
	if err != nil {
		return false, err
	}
	if !bytes.Contains(body, []byte(p.Health.Match)) {
		return false, fmt.Errorf("probe's body does not contain %q", p.Health.Match)
	}
	return false, nil
}

// probed takes the outcome of a probe.
func (p *Pool) probed(b *backend, now time.Time, err error, refused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.counts.Probes++
	limit := p.Health.HealthyAfter
	if err != nil {
		b.counts.ProbesBad++
		limit = p.Health.UnhealthyAfter
		b.why, p.lastDown = err, err
	}
	b.refusing = refused
	if err == nil && b.waiting > 0 {
		b.waitingSince = now // it does not hang, whatever requests wait for
	}
	if (err != nil) == b.down {
		b.probes = 0
		p.grant(now) // one that takes connections again may be tried
		return
	}
	if b.probes++; b.probes < limit {
		return
	}
	was := b.up()
	b.probes, b.down = 0, err != nil
	p.changed(b, was, now)
}

// failureLimit is how many requests in a row a server may fail before it is ejected.
const failureLimit = 3

// Pauses of an ejection: the first is the interval of probes, or firstPause without any; each that follows soon is twice as long as the one before.
const (
	firstPause = 5 * time.Second
	maxPause   = 5 * time.Minute
)

var errAnswer = errors.New("server error")

// succeeded takes the end of a response to a request that was sent at a time. It ends what was wrong; a server that is ejected and was tried all the same, as there was
// none better, is back at once.
func (p *Pool) succeeded(b *backend, sent, now time.Time) {
	was := b.up()
	b.failures, b.refusing = 0, false
	if b.ejected && sent.After(b.ejectedAt) && !p.closed {
		b.pause.Stop()
		b.ejected = false
		p.changed(b, was, now)
	}
}

// failed takes the failure of a request, and ejects the server if it is one too many, or if the server hangs.
func (p *Pool) failed(b *backend, now time.Time, err error, refused, hangs bool) {
	b.failures++
	b.why, p.lastDown = err, err
	b.refusing = refused
	b.counts.Failures[Reason(err)]++
	if b.ejected || p.closed || b.failures < failureLimit && !hangs || p.isLast(b) {
		return
	}
	was := b.up()
	pause := firstPause
	if p.Health != nil {
		pause = p.Health.Interval
	}
	if b.paused > 0 && now.Sub(b.since) > 4*b.paused { // it was well for long
		b.pauses = 0
	}
	for range b.pauses {
		pause = min(2*pause, maxPause)
	}
	b.pauses++
	b.paused = pause
	b.ejected, b.ejectedAt, b.failures = true, now, 0
	b.counts.Ejections++
	b.pause = time.AfterFunc(pause, func() { p.readmit(b) })
	p.changed(b, was, now)
}

// isLast says whether no other server is up, so that b may not be ejected. With edges there is a next tier in place of the last.
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
	was := b.up()
	b.ejected, b.failures = false, failureLimit-1
	p.changed(b, was, now)
}

// changed does what follows when the look of a server may have changed. The caller holds mu.
func (p *Pool) changed(b *backend, was bool, now time.Time) {
	if b.up() != was {
		b.counts.Changes++
		if b.up() {
			b.since = now
			p.Log.Info("origin server is back", "site", p.Name, "server", b.label(), "slow_start", p.SlowStart)
		} else if b.ejected && !b.down {
			p.Log.Warn("origin server is ejected", "site", p.Name, "server", b.label(), "pause", b.paused, "error", b.why)
		} else {
			p.Log.Warn("origin server is unhealthy", "site", p.Name, "server", b.label(), "error", b.why)
		}
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
	// With backups there is no need to panic before the last primary, and then it is their turn. Edges have a next tier.
	panics := !p.Relays && up*2 < primaries && (up > 0 || spares == 0)
	if panics != p.panic {
		p.panic = panics
		if panics {
			p.Log.Warn("most origin servers look unhealthy: all that take connections are used", "site", p.Name, "healthy", up, "servers", primaries)
		} else {
			p.Log.Info("enough origin servers look healthy again", "site", p.Name, "healthy", up, "servers", primaries)
		}
	}
	p.grant(now)
}
