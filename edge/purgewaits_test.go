package edge

import (
	"context"
	"net/http"
	"strings"
	"testing"
)

// waitsLong is a node that never has applied a purge, and tells of each that waits.
type waitsLong struct {
	oneNode
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
	e := newEdge(t, static("x"), func(s *Server, _ *Site) {
		s.Fleet = node
		s.SetTokens(tokens)
	})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	purge := func(ctx context.Context, token, query string) (status int, retry string) {
		r, err := http.NewRequestWithContext(ctx, "POST", "http://"+e.AdminAddr().String()+"/v1/purge"+query, strings.NewReader(`{"tags":["x"]}`))
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
		for range maxPurgeWaitsEach {
			if i == maxPurgeWaits/maxPurgeWaitsEach {
				break
			}
			go purge(ctx, token.Secret, "?wait=all&limit=5m")
			<-node.waits
		}
		before := e.Store.Epoch()
		if status, retry := purge(ctx, token.Secret, "?wait=all&limit=100ms"); status != http.StatusServiceUnavailable || retry == "" || e.Store.Epoch() != before {
			t.Errorf("token %s, one more: %d, Retry-After %q", token.Secret, status, retry)
		}
		if status, _ := purge(ctx, token.Secret, ""); status != http.StatusOK {
			t.Errorf("token %s, without a wait: %d", token.Secret, status)
		}
	}
	leave()
	until(t, "all have left", func() bool {
		e.purgeWaits.mu.Lock()
		defer e.purgeWaits.mu.Unlock()
		return e.purgeWaits.all == 0 && len(e.purgeWaits.of) == 0
	})
}
