package edge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

func (e *testEdge) warmed(body string, fields ...string) (admin.WarmResponse, answer) {
	e.t.Helper()
	got := e.admin("POST", "/v1/warm", body, append(fields, "Content-Type: application/json")...)
	e.settle()
	var resp admin.WarmResponse
	if got.status == 200 {
		if err := decode(got.body, &resp); err != nil {
			e.t.Errorf("%s: %v", got.body, err)
		}
	}
	return resp, got
}

func TestWarm(t *testing.T) {
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		switch r.URL.Path {
		case "/private":
			w.Header().Set("Cache-Control", "private")
		case "/gone":
			w.WriteHeader(404)
		case "/cut":
			w.Header().Set("Content-Length", "1000")
		case "/vary":
			w.Header().Set("Vary", "Accept-Encoding")
		}
		_, _ = io.WriteString(w, r.RequestURI)
	})
	urls := func(list ...string) string { return `{"urls":["` + strings.Join(list, `","`) + `"], "rate":1000}` }
	resp, _ := e.warmed(urls("http://www.example/a", "http://WWW.example:80/b?x=%2F1#top", "http://www.example",
		"http://www.example/vary"))
	if resp.Asked != 4 || resp.Stored != 4 || len(resp.Failed) != 0 {
		t.Errorf("%+v", resp)
	}
	for _, path := range []string{"/a", "/b?x=%2F1", "/"} {
		got := e.get(path)
		got.wants(t, 200, path)
		if !got.isHit() {
			t.Errorf("%s: %v", path, got.header["Cache-Status"])
		}
	}
	if got := e.get("/vary", "Accept-Encoding: gzip, deflate"); !got.isHit() {
		t.Errorf("what a browser asks for: %v", got.header["Cache-Status"])
	}
	e.wantHits(4)
	if resp, _ = e.warmed(urls("http://www.example/a")); resp.Stored != 1 {
		t.Errorf("again: %+v", resp)
	}
	e.wantHits(4)
	if resp, _ = e.warmed(urls("https://www.example/a")); resp.Stored != 1 { // another origin
		t.Errorf("over TLS: %+v", resp)
	}
	e.wantHits(5)
	resp, _ = e.warmed(urls("http://www.example/private", "http://www.example/gone", "http://www.example/cut",
		"http://other.example/a", "/a", "ftp://www.example/"))
	if resp.Asked != 6 || resp.Stored != 0 || len(resp.Failed) != 6 {
		t.Errorf("%+v", resp)
	}
	for _, f := range resp.Failed {
		if f.URL == "http://www.example/cut" && strings.Contains(f.Error, "502") {
			continue // the fetch had failed before its answer began
		}
		want := map[string]string{"http://www.example/private": "private", "http://www.example/gone": "404",
			"http://www.example/cut": "cut short",
			"http://other.example/a": "no site", "/a": "absolute", "ftp://www.example/": "absolute"}[f.URL]
		if want == "" || !strings.Contains(f.Error, want) {
			t.Errorf("%+v, want %q", f, want)
		}
	}
}

func TestWarmIsBounded(t *testing.T) {
	var now, most atomic.Int64
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, "x")
	}, func(s *Server, _ *site.Site) {
		s.Tokens.Set([]purge.Token{{Secret: "t", Scopes: []string{purge.ScopeWarm}, Sites: []string{"www"}},
			{Secret: "p", Scopes: []string{purge.ScopePurge}}})
	})
	token := "Authorization: Bearer t"
	var list []string
	for i := range 60 {
		list = append(list, fmt.Sprintf(`"http://www.example/%d"`, i))
	}
	began := time.Now()
	resp, got := e.warmed(`{"rate":200,"urls":[`+strings.Join(list, ",")+`]}`, token)
	if resp.Stored != 60 || most.Load() > admin.WarmAtOnce {
		t.Errorf("%+v, %d at once: %s", resp, most.Load(), got.body)
	}
	if took := time.Since(began); took < 59*time.Second/200 {
		t.Errorf("60 URLs at 200 a second took %v", took)
	}
	for body, want := range map[string]int{
		`{"urls":[]}`: 400, `{`: 400, `{"urls":["http://www.example/"],"rate":1001}`: 400,
		`{"urls":["http://www.example/"],"rate":-1}`: 400,
		`{"urls":["http://other.example/"]}`:         403, `{"url":["http://www.example/"]}`: 400,
		`{"urls":["` + strings.Repeat("a", purge.MaxBody) + `"]}`: 400, `{"urls":[` + strings.Repeat(`"a",`,
			admin.MaxWarmURLs) + `"a"]}`: 400,
	} {
		if _, got := e.warmed(body, token); got.status != want {
			t.Errorf("%.60s: %d, %s", body, got.status, got.body)
		}
	}
	for field, want := range map[string]int{"Authorization: Bearer p": 403, "X: y": 401} {
		if _, got := e.warmed(`{"urls":["http://www.example/"]}`, field); got.status != want {
			t.Errorf("%s: %d, %s", field, got.status, got.body)
		}
	}
	if got := e.admin("POST", "/v1/warm", `{"urls":["http://www.example/"]}`, token,
		"Content-Type: text/plain"); got.status != 415 {
		t.Errorf("text: %d", got.status)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan admin.WarmResponse, 1)
	go func() {
		ended <- e.Server.admin.Warm(ctx,
			admin.WarmRequest{URLs: []string{"http://www.example/slow", "http://www.example/slow?2"},
				Rate: 1000}, "127.0.0.1:1")
	}()
	testwait.Until(t, "the origin is asked", func() bool { return now.Load() == 2 })
	cancel()
	if resp := <-ended; resp.Stored != 0 || len(resp.Failed) != 2 {
		t.Errorf("ended: %+v", resp)
	}
}
