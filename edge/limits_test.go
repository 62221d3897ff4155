package edge

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// A client that takes its request back while the edge waits for more of its body: what reads the
// body for the origin may outlive the request.
func TestBodyTakenBack(t *testing.T) {
	for _, p := range []protocol{protoHTTP2, protoHTTP3} {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			came := make(chan struct{})
			e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				came <- struct{}{}
				_, _ = io.Copy(io.Discard, r.Body)
			}, func(s *Server, _ *site.Site) {
				s.HTTPS, s.Certificates = "127.0.0.1:0", newCertificates(t, "www.example")
			})
			for range 3 {
				client := e.newClientOf(p)
				var clients sync.WaitGroup
				const at = front.ResetsFree / 2
				ctx, takeBack := context.WithCancel(t.Context())
				for range at {
					body, sending := io.Pipe()
					r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://www.example/", body)
					if err != nil {
						t.Fatal(err)
					}
					clients.Go(func() {
						defer sending.Close()
						resp, err := client.Do(r)
						switch {
						case err == nil:
							t.Errorf("an answer: %s", resp.Status)
							resp.Body.Close()
						case ctx.Err() == nil:
							t.Errorf("it never came: %v", err)
							came <- struct{}{}
						}
					})
				}
				for range at {
					<-came
				}
				takeBack()
				clients.Wait()
				client.CloseIdleConnections()
			}
			resp, err := e.newClientOf(p).Get("https://www.example" + admin.HealthPath)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("then: %s", resp.Status)
			}
		})
	}
}
