package edge

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// together answers the first alone requests at once, and all others when so many of them are there
// as there are clients: none of them waits for another one on the way.
func together(alone, clients int64, status int, fields ...string) http.HandlerFunc {
	var asked atomic.Int64
	all := make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		if n := asked.Add(1); n == alone+clients {
			close(all)
		} else if n > alone {
			select {
			case <-all:
			case <-r.Context().Done():
				return
			}
		}
		setFields(w.Header(), fields)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "for "+r.Header.Get("X-Me"))
	}
}

// Requests whose answers can't be shared are at the origin at the same time.
func TestWhoCannotShareDoesNotQueue(t *testing.T) { overProtocols(t, testWhoCannotShareDoesNotQueue) }

func testWhoCannotShareDoesNotQueue(t *testing.T, p protocol) {
	const clients = 8
	for _, c := range []struct {
		name   string
		before int64 // requests that show what the answers are like
		token  bool
		status int
		fields []string
	}{
		{"tokens, private", 0, true, 200, []string{"Cache-Control: private, no-store"}},
		{"tokens, nothing said", 0, true, 200, nil},
		{"tokens, an error", 0, true, 500, nil},
		{"private", 1, false, 200, []string{"Cache-Control: private"}},
		{"an error", 1, false, 500, nil},
		{"an error that may not be stored", 1, false, 503, []string{"Cache-Control: no-store"}},
	} {
		for _, ranged := range []string{"", "Range: bytes=0-3"} {
			t.Run(c.name+" "+ranged, func(t *testing.T) {
				e := p.newEdge(t, together(c.before, clients, c.status, c.fields...))
				ask := func(i int64) answer {
					fields := []string{fmt.Sprintf("X-Me: %d", i)}
					if c.token {
						fields = append(fields, fmt.Sprintf("Authorization: Bearer %d", i))
					}
					if ranged != "" {
						fields = append(fields, ranged)
					}
					return e.do(e.request("GET", "/a", "", fields...))
				}
				for range c.before {
					ask(-1)
					e.settle()
				}
				answers := make([]chan answer, clients)
				for i := range answers {
					answers[i] = make(chan answer, 1)
					go func() { answers[i] <- ask(int64(i)) }()
				}
				testwait.Until(t, "all are at the origin", func() bool { return e.hits.Load() == c.before+clients })
				for i := range answers {
					(<-answers[i]).wants(t, c.status, fmt.Sprintf("for %d", i))
				}
			})
		}
	}
}

// What turned out to be for all in spite of credentials is validated once for all who wait.
func TestSharedInSpiteOfCredentials(t *testing.T) { overProtocols(t, testSharedInSpiteOfCredentials) }

func testSharedInSpiteOfCredentials(t *testing.T, p protocol) {
	const clients = 8
	var validating atomic.Bool
	release := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: public, max-age=1000", `Etag: "1"`})
		if validating.Load() {
			<-release
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Age", "2000")
		_, _ = io.WriteString(w, "for all")
	})
	e.get("/a", "Authorization: Bearer 0").wants(t, 200, "for all")
	validating.Store(true)
	answers := make(chan answer)
	for i := range clients {
		go func() { answers <- e.do(e.request("GET", "/a", "", fmt.Sprintf("Authorization: Bearer %d", i))) }()
	}
	testwait.Until(t, "all follow one flight", func() bool { return e.followers() == clients })
	close(release)
	for range clients {
		(<-answers).wants(t, 200, "for all")
	}
	e.wantHits(2)
}

// When the errors are over, those who ask for the same wait for one fetch again.
func TestWaitingAgainAfterErrors(t *testing.T) { overProtocols(t, testWaitingAgainAfterErrors) }

func testWaitingAgainAfterErrors(t *testing.T, p protocol) {
	const clients = 8
	var asked atomic.Int64
	h, step := gated([]string{"Cache-Control: max-age=1000"}, "fine")
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			w.Header().Set("Cache-Control", "max-age=1000")
		default:
			h(w, r)
		}
	})
	e.get("/a").wants(t, 500, "")
	e.get("/a").wants(t, 200, "")
	if got := e.purge(`{"urls":["http://www.example/a"]}`); got.status != 200 {
		t.Fatalf("purge: %+v", got)
	}
	answers := make(chan answer)
	for range clients {
		go func() { answers <- e.do(e.request("GET", "/a", "")) }()
	}
	testwait.Until(t, "all follow one flight", func() bool { return e.followers() == clients })
	close(step)
	for range clients {
		(<-answers).wants(t, 200, "fine")
	}
	e.wantHits(3)
}
