package edge

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// A client that takes its request back while the edge waits for more of its body: what reads the
// body for the origin may outlive the request.
func TestBodyTakenBack(t *testing.T) {
	for _, protocol := range []string{"h2", "h3"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			came := make(chan struct{})
			e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				came <- struct{}{}
				_, _ = io.Copy(io.Discard, r.Body)
			}, func(s *Server, _ *Site) { s.HTTPS, s.Certificates = "127.0.0.1:0", newCertificates(t, "www.example") })
			for range 3 {
				client := e.newClientOf(protocol)
				var clients sync.WaitGroup
				const at = resetsFree / 2
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
			resp, err := e.newClientOf(protocol).Get("https://www.example" + healthPath)
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

// deadlines is a ResponseWriter that counts the read deadlines that are set.
type deadlines struct {
	http.ResponseWriter
	set int
}

func (d *deadlines) SetReadDeadline(time.Time) error {
	d.set++
	return nil
}

// What reads a body after its request was answered sets no deadlines: the controller is not the
// request's any more.
func TestBodyReadAfterAnswer(t *testing.T) {
	w := &deadlines{}
	_, b := (&Server{}).watchBody(httptest.NewRequest("POST", "/", strings.NewReader("body")), nil, http.NewResponseController(w))
	w.set = 0
	if _, err := b.Read(make([]byte, 1)); err != nil || w.set != 1 {
		t.Fatalf("%d deadlines before the answer, %v", w.set, err)
	}
	b.answered()
	w.set = 0
	if rest, err := io.ReadAll(b); err != nil || string(rest) != "ody" {
		t.Errorf("read %q, %v", rest, err)
	}
	if err := b.Close(); err != nil || w.set != 0 {
		t.Errorf("%d deadlines after the answer, %v", w.set, err)
	}
}
