package edge

import (
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// askTogether has users ask for /a at the same time, one of whom leads a flight that the others
// follow. The origin answers when open is closed.
func (e *testEdge) askTogether(open chan struct{}, users ...string) map[string]answer {
	e.t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	got := map[string]answer{}
	for i, user := range users {
		all.Go(func() {
			a := e.do(e.request("GET", "/a", "", "X-User: "+user))
			mu.Lock()
			defer mu.Unlock()
			got[user] = a
		})
		testwait.Until(e.t, "the flight has "+user, func() bool { return e.followers() == i+1 })
	}
	close(open)
	all.Wait()
	e.settle()
	return got
}

// The cookie of a response that is stored without it is of the client whose request it answers: not
// of those who waited along, nor of those who come later or have it validated.
func TestCookieIsOfOneClient(t *testing.T) { overProtocols(t, testCookieIsOfOneClient) }

func testCookieIsOfOneClient(t *testing.T, p protocol) {
	for _, directive := range []string{"no-cache", "private"} {
		t.Run(directive, func(t *testing.T) {
			open := make(chan struct{})
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				h.Set("Cache-Control", fmt.Sprintf(`max-age=1000, %s="Set-Cookie"`, directive))
				h.Set("Etag", `"1"`)
				if r.Header.Get("If-None-Match") != "" {
					w.WriteHeader(http.StatusNotModified)
					return
				}
				h.Set("Set-Cookie", "id="+r.Header.Get("X-User"))
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				<-open
				_, _ = w.Write([]byte("body"))
			})
			got := e.askTogether(open, "alice", "bob", "carol")
			got["dave"] = e.get("/a", "X-User: dave")
			got["erin"] = e.get("/a", "X-User: erin", "Cache-Control: no-cache")
			for user, a := range got {
				want := ""
				if user == "alice" {
					want = "id=alice"
				}
				if cookie := a.header.Get("Set-Cookie"); cookie != want || a.body != "body" {
					t.Errorf("%s gets the cookie %q, want %q: %v", user, cookie, want, a.header)
				}
			}
			e.wantHits(2)
		})
	}
}

// A field that must not be used without validation is of the request that brought it.
func TestUnvalidatedFieldOfFollowers(t *testing.T) { overProtocols(t, testUnvalidatedFieldOfFollowers) }

func testUnvalidatedFieldOfFollowers(t *testing.T, p protocol) {
	open := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", `max-age=1000, no-cache="X-Name"`)
		w.Header().Set("X-Name", r.Header.Get("X-User"))
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-open
	})
	for user, a := range e.askTogether(open, "alice", "bob") {
		if got := a.header.Get("X-Name"); got != "" && user != "alice" {
			t.Errorf("%s gets the name %q", user, got)
		}
	}
}

// A slice of a stored response that is for one client, or sets a cookie, leaves nothing for others.
func TestSliceForOneClient(t *testing.T) { overProtocols(t, testSliceForOneClient) }

func testSliceForOneClient(t *testing.T, p protocol) {
	for _, private := range []string{"private", "no-store", "max-age=1000"} {
		t.Run(private, func(t *testing.T) {
			body := strings.Repeat("0123456789", 400)
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				h.Set("Cache-Control", "max-age=1000")
				h.Set("Etag", `"1"`)
				if r.Header.Get("X-User") == "bob" {
					h.Set("Cache-Control", private)
					h.Set("Set-Cookie", "id=bob")
					h.Set("X-Name", "bob")
				}
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
			}, func(_ *Server, site *site.Site) { site.Slice = 1000 })
			for _, c := range []struct{ user, first, last string }{{"alice", "0", "10"}, {"bob", "1000", "1010"},
				{"carol", "0", "10"},
				{"dave", "1000", "1010"}, {"erin", "0", "1500"}} {
				a := e.get("/a", "X-User: "+c.user, "Range: bytes="+c.first+"-"+c.last)
				if a.status != http.StatusPartialContent || !strings.HasPrefix(a.body, "0123456789") {
					t.Errorf("%s gets %d %q", c.user, a.status, a.body)
				}
				if c.user == "bob" {
					continue
				}
				if a.header.Get("Set-Cookie") != "" || private != "max-age=1000" && a.header.Get("X-Name") != "" {
					t.Errorf("%s gets what is bob's: %v", c.user, a.header)
				}
			}
		})
	}
}

// What a 304 says to one client alone is not told to those who waited for the same validation.
func TestValidationForOneClient(t *testing.T) { overProtocols(t, testValidationForOneClient) }

func testValidationForOneClient(t *testing.T, p protocol) {
	open := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Etag", `"1"`)
		if user := r.Header.Get("X-User"); user != "" {
			w.Header().Set("Cache-Control", "private")
			w.Header().Set("X-Name", user)
		}
		if r.Header.Get("If-None-Match") != "" {
			<-open
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write([]byte("body"))
	})
	e.get("/a")
	for user, a := range e.askTogether(open, "alice", "bob", "carol", "dave", "erin") {
		if got := a.header.Get("X-Name"); got != user || a.body != "body" {
			t.Errorf("%s gets the name %q and the body %q: %v", user, got, a.body, a.header)
		}
	}
}

// An interim response is of the request that it answers, as it comes before anybody knows whom the
// final one is for.
func TestInterimResponseOfOneClient(t *testing.T) { overProtocols(t, testInterimResponseOfOneClient) }

func testInterimResponseOfOneClient(t *testing.T, p protocol) {
	open := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</avatar/"+r.Header.Get("X-User")+">; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		<-open
		w.Header().Set("Cache-Control", "private")
		_, _ = w.Write([]byte("body"))
	})
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, user := range []string{"alice", "bob"} {
		all.Go(func() {
			r := e.request("GET", "/a", "", "X-User: "+user)
			r = r.WithContext(httptrace.WithClientTrace(r.Context(),
				&httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
					mu.Lock()
					defer mu.Unlock()
					if link := h.Get("Link"); !strings.Contains(link, user) {
						t.Errorf("%s gets %q", user, link)
					}
					return nil
				}}))
			e.do(r).wants(t, 200, "body")
		})
		testwait.Until(t, "the flight has "+user, func() bool { return e.followers() == i+1 })
	}
	close(open)
	all.Wait()
}

// A request that an origin ends the connection on fails alone: those who waited along ask again.
func TestFailureOfOneClient(t *testing.T) { overProtocols(t, testFailureOfOneClient) }

func testFailureOfOneClient(t *testing.T, p protocol) {
	open := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-User") == "mallory" {
			<-open
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = w.Write([]byte("body"))
	})
	got := e.askTogether(open, "mallory", "alice", "bob", "carol")
	for user, a := range got {
		if user == "mallory" && a.status != http.StatusBadGateway || user != "mallory" && a.status != http.StatusOK {
			t.Errorf("%s gets %d: %v", user, a.status, a.header)
		}
	}
	e.wantHits(2)
}

// An origin that ends all connections is asked at most once for each of those who wait together.
func TestFailureOfAll(t *testing.T) { overProtocols(t, testFailureOfAll) }

func testFailureOfAll(t *testing.T, p protocol) {
	open := make(chan struct{})
	e := p.newEdge(t, func(http.ResponseWriter, *http.Request) {
		<-open
		panic(http.ErrAbortHandler)
	})
	for user, a := range e.askTogether(open, "alice", "bob", "carol", "dave") {
		if a.status != http.StatusBadGateway {
			t.Errorf("%s gets %d", user, a.status)
		}
	}
	if n := e.hits.Load(); n > 4 {
		t.Errorf("the origin was asked %d times", n)
	}
}
