package edge

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// alikeProtocols are those that have to answer alike, with the letter that stands for {p} in what
// they ask for, so that each finds nothing of the others in the cache.
var alikeProtocols = []struct{ name, letter string }{{"HTTP/1.1 over TLS", "~1"}, {"HTTP/2", "~2"}, {"HTTP/3", "~3"}}

// alikeRequest is a request that is sent over all of them.
type alikeRequest struct {
	name string
	rawMessage
	// status is what it is answered with. 400 may be a reset of the stream over HTTP/2 and HTTP/3
	// (RFC 9113, 8.1.1; RFC 9114, 4.1.2).
	status int
	number string // of this request among all, which is in what it asks for
	primed bool   // what a GET for the same is answered with is in the cache already
	bare   bool   // a library answers with the status alone
	cut    bool   // the origin may get a part of the body
	not1   bool   // HTTP/1.1 has no such request
}

// at returns the request of one protocol.
func (q alikeRequest) at(letter string) rawMessage {
	m := q.rawMessage
	fill := func(s string) string { return strings.ReplaceAll(s, "{p}", letter) }
	m.target, m.line, m.replaced = fill(m.target), fill(m.line), slices.Clone(m.replaced)
	for i, f := range m.replaced {
		m.replaced[i].Value = fill(f.Value)
	}
	return m
}

// alikeOrigin answers by the first part of the path, and remembers what it was asked.
type alikeOrigin struct {
	mu   sync.Mutex
	seen []string
}

func (o *alikeOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	o.mu.Lock()
	o.seen = append(o.seen, fmt.Sprintf("%s %s %s, length %d %v, body %q %v, %v", r.Method, r.Host, r.RequestURI,
		r.ContentLength, r.TransferEncoding, body, err, alikeFields(r.Header)))
	o.mu.Unlock()
	h := w.Header()
	kind, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	h.Set("Cache-Control", "max-age=1000")
	h.Set("Content-Type", "text/plain")
	switch kind {
	case "unknown":
		w.(http.Flusher).Flush()
	case "large":
		h.Set("Content-Length", "60000")
		_, _ = io.WriteString(w, strings.Repeat("x", 59999))
	case "private":
		h.Set("Cache-Control", "private, no-store")
	case "stale":
		h.Set("Cache-Control", "max-age=0")
		h.Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	case "etag":
		h.Set("Etag", `"1"`)
		h.Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	case "vary":
		h.Set("Vary", "Accept-Language, Accept-Encoding")
	case "untyped":
		h["Content-Type"] = nil
	case "empty":
		return
	case "nothing":
		w.WriteHeader(http.StatusNoContent)
		return
	case "moved":
		h.Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusMovedPermanently)
	case "absent":
		w.WriteHeader(http.StatusNotFound)
	case "broken":
		w.WriteHeader(http.StatusInternalServerError)
	case "hints":
		h.Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
	case "trailers":
		h.Set("Trailer", "X-Sum")
		defer h.Set("X-Sum", "1")
	}
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, "x")
	}
}

// take returns what was asked with some text in it since the last call.
func (o *alikeOrigin) take(text string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var asked []string
	for _, s := range o.seen {
		if strings.Contains(s, text) {
			asked = append(asked, s)
		}
	}
	o.seen = nil
	return strings.Join(asked, "\n")
}

// alikeFields are fields in one order, but for those of a connection, and what tells the time and
// the protocol.
func alikeFields(h http.Header) string {
	h = h.Clone()
	for _, name := range []string{"Date", "Age", "Alt-Svc", "Connection", "Transfer-Encoding", "Cdn-Loop", "Trailer"} {
		delete(h, name)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h)) {
		fmt.Fprintf(&b, "%s: %q\n", name, h[name])
	}
	text := alikeTTL.ReplaceAllString(b.String(), "ttl=N")
	return alikeVia.ReplaceAllString(text, `"N hel1"`)
}

var (
	alikeTTL    = regexp.MustCompile(`ttl=-?\d+`)
	alikeDetail = regexp.MustCompile(`detail=\\?"[^"]*"|"\d+"`)
	alikeVia    = regexp.MustCompile(`"[123](\.\d)? hel1"`)
)

// Whatever a request comes over, it gets the same answer, cold and warm, and the origin the same
// request.
func TestProtocolsAnswerAlike(t *testing.T) { overHTTP2(t, testProtocolsAnswerAlike) }

func testProtocolsAnswerAlike(t *testing.T, p protocol) {
	o := &alikeOrigin{}
	// An end that is there is found however long it takes, and one that never comes isn't waited
	// for.
	patient := p.newEdge(t, o.ServeHTTP, func(s *Server, _ *site.Site) { s.bodyEnd = time.Minute })
	hasty := p.newEdge(t, o.ServeHTTP, func(s *Server, _ *site.Site) { s.bodyEnd = time.Millisecond })
	clients := map[bool]map[string]rawClient{false: patient.rawClients(), true: hasty.rawClients()}
	ask := func(q alikeRequest, at int) (text string, refused bool) {
		p := alikeProtocols[at]
		got := clients[q.open][p.name].send(q.at(p.letter))
		patient.settle()
		hasty.settle()
		asked := o.take(p.letter + q.number)
		if q.cut && strings.Contains(asked, "unexpected EOF") {
			asked = ""
		}
		refused = q.status == 400 && got.err != nil && at > 0
		text = fmt.Sprintf("%d\n%s%.60q of %d bytes", got.status, alikeFields(got.header), got.body, len(got.body))
		switch {
		case got.err != nil:
			text = got.err.Error()
		case q.bare || q.cut:
			text = fmt.Sprint(got.status)
		case q.status == 400: // a library has words of its own
			text = fmt.Sprintf("400\n%s", alikeDetail.ReplaceAllString(alikeFields(got.header), "N"))
		}
		if got.status != q.status && !refused || q.status == 400 && asked != "" {
			t.Errorf("%s, over %s: %s, and asks the origin %q; want %d", q.name, p.name, text, asked, q.status)
		}
		return strings.ReplaceAll(text+"\nasks the origin "+asked, p.letter, "{p}"), refused
	}
	list := alikeRequests()
	for _, q := range list {
		for _, turn := range []string{"cold", "warm"} {
			var first, over string
			if turn == "cold" && q.primed {
				turn = "primed"
			}
			for at, p := range alikeProtocols {
				if q.not1 && at == 0 {
					continue
				}
				if q.primed {
					ask(alikeRequest{name: "GET before " + q.name, status: alikePrimed(q), number: q.number,
						rawMessage: rawMessage{rawRequest: rawRequest{"GET", q.authority, q.target, nil},
							open: q.open}}, at)
				}
				text, refused := ask(q, at)
				switch {
				case refused:
				case first == "":
					first, over = text, p.name
				case text != first:
					t.Errorf("%s, %s\nover %s: %s\nover %s: %s", q.name, turn, over, first, p.name, text)
				}
			}
		}
	}
	t.Logf("%d requests", len(list))
}

// alikePrimed is the status of a GET that goes before a request.
func alikePrimed(q alikeRequest) int {
	if q.status >= 200 && q.status != 206 && q.status != 304 && q.status != 416 {
		return q.status
	}
	return 200
}
