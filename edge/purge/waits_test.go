package purge

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// waitsLong is a node that never has applied a purge, and tells of each that waits.
type waitsLong struct {
	waits chan struct{}
}

func (n waitsLong) Progress(ctx context.Context, _ uint64, wait bool) []Progress {
	if wait {
		select {
		case n.waits <- struct{}{}:
		case <-ctx.Done():
		}
		<-ctx.Done()
	}
	return []Progress{{Node: "hel1"}}
}

// The requests that wait for all edges are bounded, in all and for each token; those beyond purge
// nothing.
func TestPurgeWaitsAreBounded(t *testing.T) {
	t.Parallel()
	node := waitsLong{waits: make(chan struct{})}
	tokens := []Token{full("a"), full("b"), full("c"), full("d"), full("e")}
	p := &Purger{Node: "hel1", Store: openStore(t), Sites: new(site.Table), Edges: node, Tokens: new(Tokens),
		Log: slog.New(slog.DiscardHandler)}
	p.Tokens.Set(tokens)
	api := httptest.NewServer(p.Tokens.Authorize(p.Endpoints()[0]))
	defer api.Close()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	purge := func(ctx context.Context, token, query string) (status int, retry string) {
		r, err := http.NewRequestWithContext(ctx, "POST", api.URL+"/v1/purge"+query,
			strings.NewReader(`{"tags":["x"]}`))
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		r.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return 0, ""
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Retry-After")
	}
	for i, token := range tokens {
		for range maxWaitsEach {
			if i == maxWaits/maxWaitsEach {
				break
			}
			go purge(ctx, token.Secret, "?wait=all&limit=5m")
			<-node.waits
		}
		before := p.Store.Epoch()
		if status, retry := purge(ctx, token.Secret,
			"?wait=all&limit=100ms"); status != http.StatusServiceUnavailable || retry == "" ||
			p.Store.Epoch() != before {
			t.Errorf("token %s, one more: %d, Retry-After %q", token.Secret, status, retry)
		}
		if status, _ := purge(ctx, token.Secret, ""); status != http.StatusOK {
			t.Errorf("token %s, without a wait: %d", token.Secret, status)
		}
	}
	leave()
	testwait.Until(t, "all have left", func() bool {
		p.waits.mu.Lock()
		defer p.waits.mu.Unlock()
		return p.waits.all == 0 && len(p.waits.of) == 0
	})
}

func full(secret string) Token { return Token{Secret: secret, Scopes: Scopes()} }
