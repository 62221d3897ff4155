package http2

import (
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// order requests one response for each of the priorities, on streams 3, 5 and so on. It opens the
// window of the connection once all of them wait, and returns the streams of the first frames DATA
// frames, in order. prepare is called before the requests.
func order(t *testing.T, s *testServer, frames int, prepare func(c *rawClient), priorities ...string) []uint32 {
	t.Helper()
	c := s.dial(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 20})
	c.ask(1, true, "GET", "/all")
	c.until("the window is used", func(f xhttp2.Frame) bool {
		d, ok := f.(*xhttp2.DataFrame)
		return ok &&
			d.StreamEnded()
	})
	if prepare != nil {
		prepare(c)
	}
	began := map[uint32]bool{}
	for i, p := range priorities {
		c.ask(uint32(2*i+3), true, "GET", "/", "priority", p)
	}
	for len(began) < len(priorities) {
		c.until("headers", func(f xhttp2.Frame) bool {
			h, ok := f.(*xhttp2.HeadersFrame)
			began[f.Header().StreamID] = true
			return ok && h != nil
		})
	}
	waiting(t, s, len(priorities))
	c.must(c.WriteWindowUpdate(0, 1<<24))
	var list []uint32
	for len(list) < frames {
		c.until("data", func(f xhttp2.Frame) bool {
			d, ok := f.(*xhttp2.DataFrame)
			if ok {
				list = append(list, d.StreamID)
			}
			return ok
		})
	}
	return list
}

// waiting waits until n responses wait for a window.
func waiting(t *testing.T, s *testServer, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		stalled := 0
		s.mu.Lock()
		for c := range s.conns {
			c.mu.Lock()
			for _, st := range c.streams {
				if st.stalled() {
					stalled++
				}
			}
			c.mu.Unlock()
		}
		s.mu.Unlock()
		if stalled == n {
			return
		}
	}
	t.Fatal("the responses don't wait")
}

// Responses are sent by urgency. At the same urgency they are sent in order, or in turns if they
// are incremental. None starves.
func TestPriorities(t *testing.T) {
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/all" {
			_, _ = w.Write(make([]byte, 1<<16-1))
			return
		}
		if _, v, ok := strings.Cut(r.Header.Get("Priority"), "answer="); ok {
			w.Header().Set("Priority", "u="+v)
		}
		_, _ = w.Write(make([]byte, 512<<10))
	})
	count := func(list []uint32, id uint32) (n int) {
		for _, l := range list {
			if l == id {
				n++
			}
		}
		return n
	}
	t.Run("urgency", func(t *testing.T) {
		list := order(t, s, 32, nil, "u=7", "u=0")
		if n := count(list, 5); n < 26 || n == 32 {
			t.Errorf("the urgent one has %d frames of %v", n, list)
		}
	})
	t.Run("the response overrides the request", func(t *testing.T) {
		list := order(t, s, 32, nil, "u=0, answer=7", "u=7, answer=0")
		if n := count(list, 5); n < 26 {
			t.Errorf("the urgent one has %d frames of %v", n, list)
		}
	})
	t.Run("in order", func(t *testing.T) {
		list := order(t, s, 24, nil, "u=3", "u=3")
		if n := count(list, 3); n < 20 {
			t.Errorf("the first one has %d frames of %v", n, list)
		}
	})
	t.Run("in turns", func(t *testing.T) {
		list := order(t, s, 24, nil, "i", "i, u=3", "u=3;x=1, i=?1")
		for _, id := range []uint32{3, 5, 7} {
			if n := count(list, id); n < 6 || n > 10 {
				t.Errorf("%d has %d frames of %v", id, n, list)
			}
		}
	})
	t.Run("PRIORITY_UPDATE before and after", func(t *testing.T) {
		list := order(t, s, 32, func(c *rawClient) {
			c.must(c.WritePriorityUpdate(5, "u=1"))
			c.must(c.WritePriorityUpdate(9, "u=2"))
		}, "u=3", "u=7", "u=4")
		if n := count(list, 5); n < 26 {
			t.Errorf("the urgent one has %d frames of %v", n, list)
		}
	})
}

func TestParsePriority(t *testing.T) {
	for v, want := range map[string]priority{"": {3, false}, "u=0": {0, false}, "u=7,i": {7, true},
		" i , u=5": {5, true}, "u=8": {3, false}, "u=-1": {3, false},
		"u": {3, false}, "i=?0": {3, false}, "i=?1": {3, true}, "i;a=b": {3, true}, "i=1": {3, false}, "u=2.5, x": {3,
			false}, "u=1, u=2": {2, false}, ",,=": {3, false}} {
		if got := defaultPriority.and(v); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}
