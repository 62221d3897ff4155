package front

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// deadlines is a ResponseWriter that counts the read deadlines that are set.
type deadlines struct {
	http.ResponseWriter
	set int
}

func (d *deadlines) SetReadDeadline(time.Time) error {
	d.set++
	return nil
}

// Reading a body after its request was answered sets no deadlines, because the controller may not
// be used any more.
func TestBodyReadAfterAnswer(t *testing.T) {
	w := &deadlines{}
	_, b := watchBody(httptest.NewRequest("POST", "/", strings.NewReader("body")), nil, http.NewResponseController(w),
		BodyTimeout)
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

// A tunnel ends if its client takes nothing.
func TestTunnelTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Metrics: &Metrics{}}
		edge, _ := net.Pipe()
		tunnel := s.newTunnel(edge)
		defer tunnel.Close()
		began := time.Now()
		_, err := tunnel.Write([]byte("x"))
		if took := time.Since(began); err == nil || took != SendTimeout {
			t.Errorf("given up after %v, with %v", took, err)
		}
	})
}

// paced is a body that returns n bytes at intervals, left times. It ignores deadlines.
type paced struct {
	n     int
	every time.Duration
	left  int
}

func (b *paced) Read(p []byte) (int, error) {
	time.Sleep(b.every)
	if b.left--; b.left < 0 {
		return 0, io.EOF
	}
	return min(b.n, len(p)), nil
}

// A body may keep the edge waiting for one second for each KiB and for a minute beyond that,
// however the waits are spread. A client that sends faster doesn't earn more than that minute.
func TestRateOfBodies(t *testing.T) {
	for _, c := range []struct {
		name  string
		body  paced
		ends  bool // the body arrives whole
		after time.Duration
	}{
		{"a byte a second", paced{1, time.Second, 1000}, false, 61 * time.Second},
		{"a byte every 59 seconds", paced{1, 59 * time.Second, 1000}, false, 118 * time.Second},
		{"a KiB a second", paced{1 << 10, time.Second, 3600}, true, 3601 * time.Second},
		{"half of that", paced{512, time.Second, 3600}, false, 120 * time.Second},
		{"half of that, but little", paced{512, time.Second, 100}, true, 101 * time.Second},
		{"8 KiB every 8 seconds", paced{8 << 10, 8 * time.Second, 1000}, true, 1001 * 8 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, took, err := readPaced(t, &c.body, false)
				if (err == nil) != c.ends || took != c.after {
					t.Errorf("%d bytes in %v, error %v; want %v", got, took, err, c.after)
				}
				if err != nil && refusal(err) != http.StatusRequestTimeout {
					t.Errorf("error %v", err)
				}
			})
		})
	}
	t.Run("much, and then a byte a second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := &struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(zeros{}, 1<<30), &paced{1, time.Second, 1000}), &paced{}}
			if n, took, err := readPaced(t, b, false); err == nil || took != 61*time.Second {
				t.Errorf("%d bytes in %v, error %v", n, took, err)
			}
		})
	})
	t.Run("a byte every 59 seconds when the response has begun", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if n, took, err := readPaced(t, &paced{1, 59 * time.Second, 100}, true); err != nil {
				t.Errorf("%d bytes in %v, error %v", n, took, err)
			}
		})
	})
}

// readPaced reads a request's body, and returns how long that took.
func readPaced(t *testing.T, body io.ReadCloser, begun bool) (n int64, took time.Duration, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "/", body)
	if err != nil {
		t.Fatal(err)
	}
	_, b := watchBody(r, nil, http.NewResponseController(&deadlines{}), BodyTimeout)
	defer b.answered()
	b.begun.Store(begun)
	began := time.Now()
	n, err = io.Copy(io.Discard, b)
	return n, time.Since(began), err
}

func newCounter() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}) }

// A tunnel ends when it carries no bytes either way for TunnelIdle.
func TestTunnelIsIdle(t *testing.T) {
	for name, use := range map[string]func(edge net.Conn, client net.Conn){
		"sent": func(edge, client net.Conn) {
			go func() { _, _ = edge.Write([]byte("x")) }()
			_, _ = client.Read(make([]byte, 1))
		},
		"received": func(edge, client net.Conn) {
			go func() { _, _ = client.Write([]byte("x")) }()
			_, _ = edge.Read(make([]byte, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{Metrics: &Metrics{idleTunnels: newCounter()}}
				edge, client := net.Pipe()
				tunnel := s.newTunnel(edge)
				for range 3 {
					time.Sleep(TunnelIdle - time.Second)
					use(tunnel, client)
				}
				began := time.Now()
				_, err := client.Read(make([]byte, 1))
				if took := time.Since(began); err != io.EOF || took != TunnelIdle {
					t.Errorf("ended after %v, with %v", took, err)
				}
				tunnel.Close()
			})
		})
	}
}

func (b *paced) Close() error { return nil }

// zeros is an endless stream of zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// refusal returns the status for refusing a request whose body can't be read.
func refusal(err error) int {
	status, _ := unreadable(err)
	return status
}
