package edge

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// What a visitor can find that all servers of an origin fail ejects none of them, over every
// protocol. One that fails alone is ejected as ever.
func TestOriginsOfFailingRequests(t *testing.T) {
	var broken atomic.Int64 // the server that is; 0 is none
	handler := func(n int64) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			switch {
			case broken.Load() == n, r.URL.Path == "/500":
				w.WriteHeader(http.StatusInternalServerError)
			case len(r.Header.Get("Large")) > 1000:
				panic(http.ErrAbortHandler)
			case r.URL.Path == "/cut":
				w.Header().Set("Content-Length", "10")
				_, _ = io.WriteString(w, "begin")
			default:
				_, _ = io.WriteString(w, "well")
			}
		}
	}
	e := newSecure(t, handler(1), 1, func(_ *Server, site *site.Site) {
		pool := site.Origin.Origin
		pool.Retries = 2
		for n := int64(2); n <= 4; n++ {
			o := httptest.NewServer(handler(n))
			t.Cleanup(o.Close)
			u, err := url.Parse(o.URL)
			if err != nil {
				t.Fatal(err)
			}
			pool.Servers = append(pool.Servers, origin.Server{URL: u})
		}
	})
	ejections := func() (n uint64) {
		for _, s := range e.site.Origin.Origin.Status().Servers {
			n += s.Ejections
		}
		return n
	}
	for _, p := range []protocol{protoHTTP1, protoHTTP2, protoHTTP3} {
		client := e.newClientOf(p)
		ask := func(method, path, large string) {
			r, err := http.NewRequestWithContext(t.Context(), method, p.scheme()+"://www.example"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if large != "" {
				r.Header.Set("Large", large)
			}
			if resp, err := client.Do(r); err == nil { // else the edge cut it
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
		for i := range 12 {
			ask("GET", fmt.Sprint("/?", p, i), strings.Repeat("x", 30<<10))
			ask("GET", fmt.Sprint("/500?", p, i), "")
			ask("POST", "/500", "")
			ask("GET", fmt.Sprint("/cut?", p, i), "")
		}
		if n := ejections(); n != 0 {
			t.Errorf("%q: %d ejections", p, n)
		}
	}
	broken.Store(3)
	for i := range 12 {
		e.get(fmt.Sprint("/?honest", i))
	}
	if st := e.site.Origin.Origin.Status().Servers[2]; st.State != "ejected" || ejections() != 1 {
		t.Errorf("the broken one is %s, %d ejections", st.State, ejections())
	}
}
