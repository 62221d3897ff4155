package edge

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// A client that cancels a stream in both directions ends it at the origin too.
func TestCancelledStreamEndsAtTheOrigin(t *testing.T) {
	ended := make(chan error, 1)
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	}))
	o.EnableHTTP2 = true
	o.StartTLS()
	t.Cleanup(o.Close)
	e := newSecure(t, nil, 1, func(_ *Server, s *site.Site) {
		u, _ := url.Parse(o.URL)
		s.Origin.Origin.Servers[0].URL, s.Origin.Origin.TLS = u, &tls.Config{InsecureSkipVerify: true}
		s.Origin.Origin.BetweenBytesTimeout = time.Hour
	})
	client := e.newClientOf(protoHTTP2)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	q, _ := http.NewRequestWithContext(ctx, "POST", "https://www.example/test.Test/Chat", r)
	resp, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, "one")
	cancel()
	resp.Body.Close() // Go's client tells the server only now
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the origin takes the request for complete")
		}
	case <-time.After(time.Minute):
		t.Error("the origin still waits after a minute")
	}
}
