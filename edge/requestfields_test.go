package edge

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// What a client says of itself as proxies do reaches no origin, whatever the protocol and the
// method, but for what a site lets pass.
func TestImpersonatingFields(t *testing.T) {
	var saw atomic.Pointer[http.Header]
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		saw.Store(&r.Header)
		_, _ = io.WriteString(w, "x")
	}, 1, func(_ *Server, s *site.Site) { s.PassFields = []string{"X-Http-Method", "Api_key"} })
	names, prefixes := cache.Impersonating()
	passes := []string{"x-http-method", "api_key", "x-own", "traceparent"}
	for name, client := range e.rawClients() {
		for _, method := range []string{"GET", "POST", "HEAD", "DELETE"} {
			q := rawRequest{method: method, authority: "www.example", target: "/a"}
			for _, n := range names {
				q.fields = append(q.fields, hpack.HeaderField{Name: strings.ToLower(n), Value: "forged"})
			}
			for _, n := range slices.Concat(prefixes, passes, []string{"x_forwarded_host", "x.forwarded.host", "x_own",
				"x-forwarded-proto", "kaiku-failed"}) {
				q.fields = append(q.fields, hpack.HeaderField{Name: strings.ToLower(strings.TrimSuffix(n, "-")) + "-x",
					Value: "forged"}, hpack.HeaderField{Name: strings.ToLower(n), Value: "forged"})
			}
			if got := client.ask(q); got.status != 200 {
				t.Fatalf("%s over %s: %+v", method, name, got)
			}
			var got []string
			for n, lines := range *saw.Load() {
				if slices.Contains(lines, "forged") {
					got = append(got, strings.ToLower(n))
				}
			}
			slices.Sort(got)
			want := append(slices.Clone(passes), "x-own-x", "traceparent-x", "proxy-x")
			got = slices.DeleteFunc(got, func(n string) bool { return slices.Contains(want, n) })
			if len(got) > 0 {
				t.Errorf("%s over %s: the origin sees %q", method, name, got)
			}
		}
		e.settle()
	}
}

// Expect is about a body. Without one it reaches no origin, whose 417 would be for others too.
func TestExpectWithoutBody(t *testing.T) {
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, r.Header.Get("Expect"))
	}, 1)
	for name, client := range e.rawClients() {
		q := rawRequest{"GET", "www.example", "/" + strings.ReplaceAll(name, " ", "-"),
			[]hpack.HeaderField{{Name: "expect", Value: "100-continue"}}}
		client.ask(q).wants(t, 200, "")
		e.settle()
	}
}

// A response that varies by a field varies by what the origin was sent of it.
func TestVaryByWhatTheOriginSees(t *testing.T) {
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=1000",
			"Vary: Origin, X-Remote-User, Proxy-Authorization, Range"})
		for _, name := range []string{"Origin", "X-Remote-User", "Proxy-Authorization"} {
			_, _ = io.WriteString(w, r.Header.Get(name)+";")
		}
	}, 1)
	field := func(name, value string) hpack.HeaderField { return hpack.HeaderField{Name: name, Value: value} }
	for name, client := range e.rawClients() {
		path := "/" + strings.ReplaceAll(name, " ", "-")
		ask := func(want string, fields ...hpack.HeaderField) {
			t.Helper()
			client.ask(rawRequest{"GET", "www.example", path, fields}).wants(t, 200, want)
			e.settle()
		}
		if strings.HasPrefix(name, "HTTP/1.1") {
			ask(";;;", field("origin", "https://app.test"), field("connection", "Origin"))
		}
		ask("https://app.test,;;;", field("origin", "https://app.test,"))
		ask(";;;", field("x-remote-user", "root"))
		ask(";;;", field("proxy-authorization", "Basic eDp5"))
		ask("https://app.test;;;", field("origin", "https://app.test"))
		ask(";;;")
	}
}

// Only WebSocket is switched to. Other upgrades are asked for in vain, and what is stored answers.
func TestUpgrades(t *testing.T) {
	var saw atomic.Pointer[http.Header]
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		saw.Store(&r.Header)
		w.Header().Set("Cache-Control", "max-age=1000")
		if r.Header.Get("Upgrade") != "" {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
			w.WriteHeader(http.StatusSwitchingProtocols)
			return
		}
		_, _ = io.WriteString(w, "x")
	}, 1)
	for _, name := range []string{"HTTP/1.1", "HTTP/1.1 over TLS"} {
		client := e.rawClients()[name]
		for i, c := range []struct {
			method, connection, upgrade string
			status                      int
		}{
			{"GET", "Upgrade, HTTP2-Settings", "h2c", 200},
			{"GET", "Upgrade", "TLS/1.0", 200},
			{"GET", "close", "websocket", 200},
			{"POST", "Upgrade", "websocket", 200},
			{"GET", "Upgrade", "websocket", 101},
			{"GET", "keep-alive, upgrade, X-Own", "h2c, WebSocket", 101},
		} {
			q := rawRequest{c.method, "www.example", "/" + string(rune('a'+i)),
				[]hpack.HeaderField{{Name: "Connection", Value: c.connection}, {Name: "Upgrade", Value: c.upgrade},
					{Name: "HTTP2-Settings", Value: "AAMAAABkAAQAAP__"}, {Name: "X-Own", Value: "1"}}}
			got := client.ask(q)
			h := *saw.Load()
			e.settle()
			if got.status != c.status || h["Http2-Settings"] != nil {
				t.Errorf("%s, %+v: %d; the origin sees %v", name, c, got.status, h)
			}
			want := ""
			if c.status == 101 {
				want = "websocket"
			}
			if h.Get("Upgrade") != want || (h.Get("Connection") == "Upgrade") != (want != "") {
				t.Errorf("%s, %+v: the origin sees %v", name, c, h)
			}
			if c.status == 200 && c.method == "GET" {
				if got := client.ask(q); !got.isHit() {
					t.Errorf("%s, %+v again: %v", name, c, got.header)
				}
			}
		}
	}
}
