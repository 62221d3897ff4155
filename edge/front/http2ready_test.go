package front

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/front/http2"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// takenRequest is a Ready that records what Request.take makes of a request. It answers none.
type takenRequest struct {
	asked, ok bool
	size      int
	request   Request // a copy that doesn't refer to the arguments of Find
}

func (*takenRequest) Open(http2.Conn) any { return nil }

func (q *takenRequest) Find(_ any, r *http2.Request, _ []byte) ([]byte, http2.Answer, bool) {
	q.asked = true
	if q.size, q.ok = q.request.take(r); q.ok {
		q.request.Target, q.request.Host = bytes.Clone(q.request.Target), bytes.Clone(q.request.Host)
		q.request.Range = bytes.Clone(q.request.Range)
		for i := range q.request.count {
			f := &q.request.fields[i]
			f.name, f.value = bytes.Clone(f.name), bytes.Clone(f.value)
		}
	}
	return nil, http2.Answer{}, false
}

// fieldBlock returns a header block of the given names and values.
func fieldBlock(fields ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

// From the same bytes, the hit lane takes the same method, key and fields as the handler. A request
// that the lane takes has no field that only the handler knows.
func FuzzReadyRequest(f *testing.F) {
	plain := []string{":method", "GET", ":scheme", "https", ":authority", "www.example", ":path", "/a?b=1"}
	for _, more := range [][]string{nil, {"range", "bytes=0-1"}, {"range", "bytes=0-1", "range", "bytes=2-"},
		{"cookie", "a=1", "cookie", "b=2"}, {"if-none-match", `"x"`, "accept", "*/*"}, {"te", "trailers"},
		{"host", "other.example"}, {"x-a", "1", "x-a", "2"}, {"cache-control", "no-cache"}, {"content-length", "0"},
		{"expect", "100-continue"}, {"trailer", "x"}, {"max-forwards", "0"}, {"x", "  spaces "}, {"x", ""}} {
		f.Add(fieldBlock(slices.Concat(plain, more)...))
	}
	for _, pseudo := range [][]string{{"HEAD", "https", "www.example:443", "/"},
		{"GET", "https", "WWW.example.", "/%41"},
		{"GET", "https", "www.example:080", "/a/../b"}, {"GET", "http", "a", "/"}, {"GET", "https", "", "/"},
		{"GET", "https", "a@b", "/"}, {"GET", "https", "[::1]:1", "//a"}, {"GET", "https", "a", "/a?#b"},
		{"GET", "https", "a:", "/a?"}, {"GET", "https", ".", "/;x"}} {
		f.Add(fieldBlock(":method", pseudo[0], ":scheme", pseudo[1], ":authority", pseudo[2], ":path", pseudo[3]))
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		if len(block) > 16<<10 {
			return
		}
		var taken takenRequest
		var handled *http.Request
		s := &http2.Server{Ready: &taken, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			handled = r
		})}
		send(t, s, block)
		switch {
		case handled != nil && taken.ok:
			taken.compare(t, handled)
		case taken.ok:
			t.Error("the handler gets no such request")
		}
		var message takenRequest // as over HTTP/3
		if handled != nil && handled.Body == http.NoBody && message.request.takeMessage(handled) {
			message.size = new(client).countRequest(handled)
			message.compare(t, handled)
		}
	})
}

// send sends a request with a header block, and waits until the server has ended the connection.
func send(t *testing.T, s *http2.Server, block []byte) {
	client, server := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.ServeConn(context.Background(), server)
	}()
	var out bytes.Buffer
	out.WriteString(xhttp2.ClientPreface)
	fr := xhttp2.NewFramer(&out, client)
	_ = fr.WriteSettings()
	_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true})
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = client.Write(out.Bytes()) }()
	for over := false; !over; {
		frame, err := fr.ReadFrame()
		if err != nil {
			break
		}
		switch frame.(type) {
		case *xhttp2.HeadersFrame, *xhttp2.RSTStreamFrame, *xhttp2.GoAwayFrame:
			over = true
		}
	}
	_ = client.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the server hangs")
	}
}

// compare compares the request of the lane with the request of the handler.
func (q *takenRequest) compare(t *testing.T, r *http.Request) {
	lane := &q.request
	if (r.Method == http.MethodHead) != lane.Head || r.Method != http.MethodHead && r.Method != http.MethodGet {
		t.Errorf("the method is %s, and for the lane HEAD: %t", r.Method, lane.Head)
	}
	if r.Body != http.NoBody || r.ContentLength != 0 {
		t.Error("the request has a body")
	}
	target, err := httpcache.ParseTarget(r, true)
	if err != nil {
		return // the lane finds nothing for an invalid host
	}
	host, port, ok := httpcache.ParseAuthority(string(lane.Host), true)
	origin := httpcache.Target{Secure: true, Host: host, Port: port}.Origin()
	if key := httpcache.KeyOf(origin, string(lane.Target)); !ok || key != target.Key() {
		t.Errorf("the key is %q, and for the lane %q, %t", target.Key(), key, ok)
	}
	for _, name := range []string{"If-Range", "If-Match", "If-Unmodified-Since", "Cache-Control", "Pragma", "Cdn-Loop",
		"Content-Length", "Trailer", "Expect", "Max-Forwards", "Authorization", "Te"} {
		if v := r.Header[name]; v != nil || r.Trailer != nil {
			t.Errorf("the lane takes a request with %s: %q", name, v)
		}
	}
	if v := r.Header["Range"]; len(v) > 1 || len(v) == 1 && v[0] != string(lane.Range) ||
		v == nil && lane.Range != nil {
		t.Errorf("the lane has the Range %q for %q", lane.Range, v)
	}
	if conditional := r.Header["If-None-Match"] != nil || r.Header["If-Modified-Since"] != nil; conditional !=
		lane.Conditional {
		t.Errorf("the request is conditional: %t, and for the lane %t", conditional, lane.Conditional)
	}
	have := http.Header{}
	for name, lines := range r.Header {
		lane.CopyTo(have, name)
		if strings.Join(have[name], "\n") != strings.Join(lines, "\n") {
			t.Errorf("%s is %q, and for the lane %q", name, lines, have[name])
		}
	}
	if size := new(client).countRequest(r); size != q.size && r.Header["Cookie"] == nil {
		t.Errorf("it counts as %d bytes, and for the lane as %d", size, q.size)
	}
}
