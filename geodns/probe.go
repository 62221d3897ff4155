package geodns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// target is what a prober needs to know about an endpoint. When it changes, the prober is replaced.
type target struct {
	url, host string
	health    Health
}

// prober probes one endpoint again and again.
type prober struct {
	target   target
	endpoint *endpoint
	// check makes one probe. nil means healthy. errNoRoute means that nothing is known.
	check func(ctx context.Context) error

	// report is called after each probe, in the prober's goroutine. changed means that the
	// endpoint's phase has changed.
	report func(e *endpoint, changed bool, took time.Duration, err error)

	stop  context.CancelFunc
	first chan struct{} // closed after the first probe, or when the prober ends
	done  chan struct{} // closed when the prober has ended
}

// run probes until ctx is done.
func (p *prober) run(ctx context.Context) {
	defer close(p.done)
	memory := hysteresis{phase: p.endpoint.phase.Load()}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for probes := 0; ; probes++ {
		select {
		case <-ctx.Done():
			if probes == 0 {
				close(p.first)
			}
			return
		case <-timer.C:
		}
		began := time.Now()
		err := p.once(ctx)
		if ctx.Err() == nil { // an interrupted probe has no result
			before := memory.phase
			if errors.Is(err, errNoRoute) {
				memory = hysteresis{phase: unroutable}
			} else {
				memory.observe(err == nil, p.target.health)
			}
			p.endpoint.phase.Store(memory.phase)
			p.report(p.endpoint, memory.phase != before, time.Since(began), err)
		}
		if probes == 0 {
			close(p.first)
		}
		timer.Reset(jitter(p.target.health.Interval))
	}
}

func (p *prober) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.target.health.Timeout)
	defer cancel()
	return p.check(ctx)
}

// jitter returns d ±10 %, so that the servers of a fleet don't all probe a node at the same time.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// httpCheck returns the probe of a target. Each probe opens a new connection, because a node that
// can't accept new connections is not healthy. Probes use no proxy and follow no redirect, because
// the answer would come from another machine.
func httpCheck(t target) func(context.Context) error {
	transport := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	if t.host != "" {
		host, _, err := net.SplitHostPort(t.host)
		if err != nil {
			host = t.host
		}
		transport.TLSClientConfig = &tls.Config{ServerName: host}
	}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url, nil)
		if err != nil {
			return err
		}
		req.Host = t.host
		req.Header.Set("User-Agent", "kaiku-geodns")
		resp, err := client.Do(req)
		if err != nil {
			if noRoute(ctx, req.URL) {
				return fmt.Errorf("%w to %s", errNoRoute, req.URL.Hostname())
			}
			return err
		}
		defer resp.Body.Close()
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("probe %s: %s", t.url, resp.Status)
		}
		return nil
	}
}

// errNoRoute is the error of a probe that could not be sent.
var errNoRoute = errors.New("this machine has no route")

// noRoute reports whether this machine has no route to the URL's address. That is so for an IPv6
// address if the machine has no IPv6. Connecting a UDP socket asks the kernel without sending a
// packet. The error of a TCP connection would not do, because it may come from a router near the
// node.
func noRoute(ctx context.Context, u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return false
	}
	conn, err := new(net.Dialer).DialContext(context.WithoutCancel(ctx), "udp", netip.AddrPortFrom(addr, 9).String())
	if err == nil {
		_ = conn.Close()
		return false
	}
	for _, errno := range []syscall.Errno{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL,
		syscall.EAFNOSUPPORT} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
