package edge

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// logged is where an access log goes to.
type logged struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

// Each request of a client is a line, whoever answers it.
func TestAccessLog(t *testing.T) {
	b := newBothWays(t)
	b.warm(t)
	var lines [2][]map[string]any
	for i, noLane := range []bool{false, true} {
		out := &logged{}
		e := newSecure(t, answerKinds, 1, func(s *Server, _ *site.Site) {
			s.Store, s.NoHitLane, s.AccessLog = b.Store, noLane, &front.AccessLog{Out: out}
		})
		for _, secure := range []bool{false, true} {
			e.exchange(t, []byte("GET /a?x=1 HTTP/1.1\r\nHost: www.example\r\nUser-Agent: \xe4\"\\ tester\r\nReferer: https://a.example/\r\n\r\n"), secure, true)
			e.exchange(t, []byte("HEAD /a HTTP/1.1\r\nHost: www.example\r\nUser-Agent: b\r\n\r\n"), secure, true)
			e.exchange(t, []byte("GET /a HTTP/1.1\r\nHost: www.example\r\nIf-None-Match: \"/a\"\r\n\r\n"), secure, true)
			e.exchange(t, []byte("POST /p HTTP/1.1\r\nHost: www.example\r\nContent-Length: 0\r\n\r\n"), secure, true)
		}
		if n := counted(t, e, "kaiku_edge_hit_lane_total"); noLane != (n == 0) {
			t.Errorf("the lane answered %v", n)
		}
		e.stop()
		for line := range strings.Lines(out.String()) {
			var got map[string]any
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if at, err := time.Parse(time.RFC3339, got["time"].(string)); err != nil || time.Since(at) > time.Minute {
				t.Errorf("%s: time is %v, %v", line, at, err)
			}
			if us, ok := got["microseconds"].(float64); !ok || us < 0 {
				t.Errorf("%s: it took %v", line, got["microseconds"])
			}
			delete(got, "time")
			delete(got, "microseconds")
			lines[i] = append(lines[i], got)
		}
	}
	if len(lines[0]) != 16 { // each exchange ends with another request
		t.Errorf("%d lines", len(lines[0]))
	}
	if !reflect.DeepEqual(lines[0], lines[1]) {
		t.Errorf("with the lane:\n%v\nwithout:\n%v", lines[0], lines[1])
	}
	for key, want := range map[string]any{"client": "127.0.0.1", "protocol": "HTTP/1.1", "method": "HEAD",
		"host": "www.example", "target": "/a", "site": "www", "cache": "hit", "status": 200.0, "bytes": 0.0,
		"user_agent": "b"} {
		if got := lines[0][2][key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
}
