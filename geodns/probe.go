package geodns

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// target is what a prober needs to know of a node. A prober is replaced when it changes, and only then.
type target struct {
	url, host string
	health    Health
}

// prober asks one node for its health, again and again.
type prober struct {
	target target
	state  *nodeState
	check  func(ctx context.Context) error // one probe; nil is healthy

	// report is called after each probe, from the prober's goroutine. changed tells that the node's phase is another now.
	report func(state *nodeState, changed bool, took time.Duration, err error)

	stop  context.CancelFunc
	first chan struct{} // closed after the first probe, or when the prober ends
	done  chan struct{} // closed when the prober has ended
}

// run probes until ctx ends.
func (p *prober) run(ctx context.Context) {
	defer close(p.done)
	memory := hysteresis{phase: p.state.phase.Load()}
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
		if ctx.Err() == nil { // a probe that was cut short says nothing
			changed := memory.observe(err == nil, p.target.health)
			p.state.phase.Store(memory.phase)
			p.report(p.state, changed, time.Since(began), err)
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

// jitter is d ±10 %, so that the servers of a fleet don't probe a node all at once.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// httpCheck makes the probe of a target. Each goes over a connection of its own: a node that can only serve the connections
// it has is not healthy. Neither a proxy nor a redirect is followed, for those would tell of another machine.
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
