package edge

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// fuzzing is the TB of an edge that a fuzz target asks: in the target, those of F must not be used.
type fuzzing struct {
	testing.TB
	mu   sync.Mutex
	last []func()
}

func newFuzzing(f *testing.F) *fuzzing {
	t := &fuzzing{TB: f}
	f.Cleanup(func() {
		for i := len(t.last) - 1; i >= 0; i-- {
			t.last[i]()
		}
	})
	return t
}

func (t *fuzzing) Helper()                  {}
func (t *fuzzing) Context() context.Context { return context.Background() }
func (t *fuzzing) Output() io.Writer        { return io.Discard }
func (t *fuzzing) Fatal(args ...any)        { panic(args) }
func (t *fuzzing) TempDir() string {
	dir, err := os.MkdirTemp("", "kaiku-fuzz-")
	if err != nil {
		panic(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // after those that use it
	return dir
}

func (t *fuzzing) Cleanup(do func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, do)
}

// seen is what an origin saw of a request.
type seen struct {
	Method, Host, URI, Value string
	Header                   http.Header
}

// FuzzRequestFields sends requests over HTTP/2 and HTTP/3, as fields, to an edge whose origin
// speaks HTTP/1.1 and tells what it was asked for. Whatever is answered, from the store or not, is
// the answer to what was asked: no two targets or variants are taken for each other.
func FuzzRequestFields(f *testing.F) {
	for _, s := range [][]string{
		{"GET", "www.example", "/a", "x", "1"}, {"GET", "www.example", "/a b", "x_y", "1"}, {"GE T", "www.example",
			"/a", "x", ""}, {"GET", "WWW.example.:443", "/a?b", "origin", "x,"},
		{"GET", "b.test", "x:27080/p", "x", "1"}, {"GET", "[::1]:80", "//a|b", "x-forwarded-for", "1"}, {"OPTIONS",
			"www.example", "*", "max-forwards", "0"},
		{"GET", "www.example", "/a HTTP/1.1", "connection", "x"}, {"POST", "www.example", "/a#b", "te", "trailers"},
		{"GET", "a..b", "/%zz", "host", "c.test"},
		{"GET", "www.example", "/ä|^[]{}\"<>\\`", "range", "bytes=0-1"}, {"HEAD", "www.example", "/\xff",
			"accept-encoding", "gzip"},
	} {
		f.Add(false, s[0], s[1], s[2], s[3], s[4], "www.example", "/a", "1")
		f.Add(true, s[0], s[1], s[2], s[3], s[4], s[1], s[2], s[4]+",")
	}
	e := newSecure(newFuzzing(f), func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", "Vary: X-Vary"})
		_ = json.NewEncoder(w).Encode(seen{r.Method, r.Host, r.RequestURI, r.Header.Get("X-Vary"), r.Header})
	}, 1, anyHost, func(s *Server, site *site.Site) {
		s.Log = slog.New(slog.DiscardHandler)
		site.Origin.Origin.Log = s.Log
	})
	clients := e.rawClients()
	f.Fuzz(func(t *testing.T, http3 bool, method, authority, target, name, value, authority2, target2, value2 string) {
		client := clients["HTTP/2"]
		if http3 {
			client = clients["HTTP/3"]
		}
		first := rawRequest{method, authority, target, []hpack.HeaderField{{Name: strings.ToLower(name), Value: value},
			{Name: "x-vary", Value: value}}}
		second := rawRequest{"GET", authority2, target2, []hpack.HeaderField{{Name: "x-vary", Value: value2}}}
		for _, q := range []rawRequest{first, second, first} {
			checkAnswer(t, q, client.ask(q))
		}
	})
}

// checkAnswer fails the test unless an answer is one to the request, or a refusal of the edge's.
func checkAnswer(t *testing.T, q rawRequest, a answer) {
	t.Helper()
	if a.err != nil || q.target == admin.HealthPath || q.target == "*" { // net/http answers OPTIONS of the whole server
		return
	}
	st := a.cacheStatus()
	if s := st["fwd-status"]; s != "" && s != "200" && s != "417" { // Expect
		t.Errorf("%+v: the origin answers %s: %q", q, s, a.body)
	}
	if a.status >= 500 && a.status != http.StatusGatewayTimeout { // only-if-cached
		t.Errorf("%+v: %d, %q", q, a.status, a.body)
	}
	if a.status != 200 || q.method == http.MethodHead {
		return
	}
	var got seen
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatalf("%+v: %q: %v", q, a.body, err)
	}
	host, port, _ := httpcache.ParseAuthority(q.authority, true)
	if port != "" {
		host += ":" + port
	}
	var asked string // as JSON has it
	b, _ := json.Marshal(q.target)
	_ = json.Unmarshal(b, &asked)
	if got.Method != q.method || got.Host != host || got.URI != asked || got.Header.Get("X-Forwarded-Host") != host {
		t.Errorf("%+v is answered as %s %s of %s", q, got.Method, got.URI, got.Host)
	}
	var value string
	b, _ = json.Marshal(strings.Trim(q.fields[len(q.fields)-1].Value, " \t"))
	_ = json.Unmarshal(b, &value)
	if got.Value != value {
		t.Errorf("%+v is answered as one with X-Vary: %q", q, got.Value)
	}
	for name := range got.Header {
		if cache.Impersonates(name) && !forwarded[name] && name != purge.PositionField && name != purge.MarkField {
			t.Errorf("%+v: the origin sees %s", q, name)
		}
	}
}

// forwarded are the fields that the edge writes itself.
var forwarded = map[string]bool{"Forwarded": true, "X-Forwarded-For": true, "X-Forwarded-Host": true,
	"X-Forwarded-Proto": true}
