package front

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// answer is a Handler that answers with a text.
type answer string

// Answer answers with the text.
func (a answer) Answer(x *Exchange) { _, _ = io.WriteString(x, string(a)) }

// newFront starts a Server with a listener for plain HTTP on loopback.
func newFront(t *testing.T, h Handler) *Server {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s := &Server{Name: "hel1", HTTP: "127.0.0.1:0", Handler: h, Registry: prometheus.NewRegistry(),
		Panics: &Panics{Log: log}, Log: log}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, nil) }()
	t.Cleanup(sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}))
	return s
}

// The Handler gets the target of a request. If it panics, only that request ends.
func TestHandler(t *testing.T) {
	t.Parallel()
	s := newFront(t, handlerFunc(func(x *Exchange) {
		if x.Target.Path == "/panic" {
			panic("at the handler")
		}
		x.SetSite("www")
		_, _ = io.WriteString(x, x.Request.Method+" "+x.Target.String())
	}))
	for path, want := range map[string]string{"/a?b": "GET http://www.example/a?b",
		"/panic": "Internal Server Error: internal-error\n"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "www.example"
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != want {
			t.Errorf("%s: %q, %v, want %q", path, body, err, want)
		}
	}
	if n := s.Panics.Count(); n != 1 {
		t.Errorf("%d panics", n)
	}
	if n := s.Metrics.Traffic().Requests; n != 1 {
		t.Errorf("%d requests of sites", n)
	}
}

type handlerFunc func(x *Exchange)

func (f handlerFunc) Answer(x *Exchange) { f(x) }
