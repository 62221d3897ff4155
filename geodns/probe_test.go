package geodns

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// oneEndpoint returns the endpoint of a node that is probed at one URL.
func oneEndpoint(name string) *endpoint {
	node := &nodeState{name: name}
	node.endpoints = []*endpoint{{node: node}}
	return node.endpoints[0]
}

func TestProberTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var began []time.Time
		start := time.Now()
		p := &prober{
			target:   target{health: Health{Interval: 10 * time.Second}.withDefaults()},
			endpoint: oneEndpoint("hel1"),
			check: func(ctx context.Context) error {
				began = append(began, time.Now())
				switch len(began) {
				case 2: // hangs until the timeout
					<-ctx.Done()
					return ctx.Err()
				case 3:
					return errors.New("refused")
				}
				return nil
			},
			first: make(chan struct{}), done: make(chan struct{}),
		}
		var phases []int32
		var took []time.Duration
		p.report = func(e *endpoint, changed bool, d time.Duration, err error) {
			phases = append(phases, e.phase.Load())
			took = append(took, d)
		}
		go p.run(ctx)
		<-p.first
		if since := time.Since(start); since != 0 || !p.endpoint.node.isHealthy() {
			t.Errorf("first probe after %v, healthy %v", since, p.endpoint.node.isHealthy())
		}
		time.Sleep(80 * time.Second)
		cancel()
		<-p.done

		if want := []int32{healthy, healthy, unhealthy, unhealthy, healthy}; len(phases) < len(want) {
			t.Errorf("phases are %v", phases)
		} else {
			for i := range want {
				if phases[i] != want[i] {
					t.Errorf("phases are %v, want %v", phases, want)
					break
				}
			}
		}
		if took[1] != time.Second {
			t.Errorf("a probe that hangs takes %v", took[1])
		}
		equal := true
		for i := 1; i < len(began); i++ {
			gap := began[i].Sub(began[i-1]) - took[i-1]
			if gap < 9*time.Second || gap > 11*time.Second {
				t.Errorf("%v between probes", gap)
			}
			equal = equal && gap == 10*time.Second
		}
		if equal {
			t.Error("no jitter")
		}
	})
}

// TestProberCut stops a prober during its first probe. Those who wait for the probe continue, and
// the node keeps its phase.
func TestProberCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := &prober{
			target:   target{health: Health{}.withDefaults()},
			endpoint: oneEndpoint("hel1"),
			check:    func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			report:   func(*endpoint, bool, time.Duration, error) { t.Error("reported") },
			first:    make(chan struct{}), done: make(chan struct{}),
		}
		p.endpoint.phase.Store(healthy)
		go p.run(ctx)
		synctest.Wait()
		cancel()
		<-p.first
		<-p.done
		if p.endpoint.phase.Load() != healthy {
			t.Error("the phase has changed")
		}
	})
}

func TestHTTPCheck(t *testing.T) {
	var host string
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { host = r.Host })
	mux.HandleFunc("/created", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusCreated) })
	mux.HandleFunc("/down", func(w http.ResponseWriter,
		r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/ok",
			http.StatusFound)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, good := range map[string]bool{"/ok": true, "/created": false, "/down": false, "/moved": false} {
		if err := httpCheck(target{url: server.URL + path})(t.Context()); (err == nil) != good {
			t.Errorf("%s gives %v", path, err)
		}
	}
	if err := httpCheck(target{url: server.URL + "/ok", host: "www.example.com"})(t.Context()); err != nil ||
		host != "www.example.com" {
		t.Errorf("host is %s, %v", host, err)
	}
	server.Close()
	if err := httpCheck(target{url: server.URL + "/ok"})(t.Context()); err == nil {
		t.Error("a server that is gone is healthy")
	}

	// A server that accepts connections and sends nothing.
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- httpCheck(target{url: "http://" + mute.Addr().String()})(ctx) }()
	conn, err := mute.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if err := <-done; err == nil {
		t.Error("a server that says nothing is healthy")
	}
}
