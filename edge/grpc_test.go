package edge

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// A response without a body is one header block that ends its stream. gRPC takes only that for a
// status without messages.
func TestEmptyResponseEndsWithItsHeader(t *testing.T) {
	e := newSecure(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Grpc-Status", "5") }, 1)
	a := e.attack()
	a.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for _, method := range []string{"POST", "GET", "PUT", "POST"} {
		id := a.next
		a.next += 2
		if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true,
			BlockFragment: a.headers(method, "/")}); err != nil {
			t.Fatal(err)
		}
		for over := false; !over; {
			frame, err := a.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if f, ok := frame.(*http2.MetaHeadersFrame); ok && f.StreamID == id {
				if over = true; !f.StreamEnded() {
					t.Errorf("%s: the stream goes on after the header block", method)
				}
			}
		}
	}
}

// A call of gRPC in both directions passes through: the request streams while the response does,
// and TE and trailers reach the other side.
func TestStreamsBothWays(t *testing.T) {
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Errorf("the origin got %s, %v", r.Proto, r.Header)
		}
		control := http.NewResponseController(w)
		_ = control.Flush()
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			_, _ = w.Write(b[:n])
			_ = control.Flush()
			if err == io.EOF {
				w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
				return
			}
			if err != nil {
				t.Errorf("the origin can't read the body: %v", err)
				return
			}
		}
	}))
	o.EnableHTTP2 = true
	o.StartTLS()
	t.Cleanup(o.Close)
	e := newSecure(t, nil, 1, func(_ *Server, s *site.Site) {
		u, _ := url.Parse(o.URL)
		s.Origin.Origin.Servers[0].URL, s.Origin.Origin.TLS = u, &tls.Config{InsecureSkipVerify: true}
	})
	client := e.newClientOf(protoHTTP2)
	r, w := io.Pipe()
	q, _ := http.NewRequestWithContext(t.Context(), "POST", "https://www.example/test.Test/Chat", r)
	q.Header.Set("Te", "trailers")
	q.Header.Set("Content-Type", "application/grpc")
	resp, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, word := range []string{"one", "two"} {
		_, _ = io.WriteString(w, word)
		wantNext(t, resp.Body, word)
	}
	_ = w.Close()
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("the end: %q, %v, trailers %v", rest, err, resp.Trailer)
	}
}
