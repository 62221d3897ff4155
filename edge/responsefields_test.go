package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"reflect"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// rawOrigin has an edge fetch from an origin that answers each request for a path with the bytes
// for it, and ends the connection.
func rawOrigin(t *testing.T, answers map[string]string) func(*Server, *site.Site) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err == nil {
					_, _ = io.WriteString(conn, answers[r.URL.Path])
				}
			})
		}
	})
	return func(_ *Server, s *site.Site) {
		s.Origin.Origin.Servers = []origin.Server{{URL: &url.URL{Scheme: "http", Host: l.Addr().String()}}}
		s.Origin.Origin.Retries = 0
	}
}

// What an origin's fields say of its connection, or can't be read in one way, is neither stored nor
// passed on. A response has one framing, the edge's.
func TestMalformedResponses(t *testing.T) { overProtocols(t, testMalformedResponses) }

func testMalformedResponses(t *testing.T, p protocol) {
	const ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
	answers := map[string]string{
		"/chunked":   ok + "Cache-Control: max-age=1000\r\nTransfer-Encoding : chunked\r\nContent-Length: 15\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"/length":    ok + "Cache-Control: max-age=1000\r\nContent-Length : 3\r\n\r\nhello",
		"/lengths":   ok + "Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello",
		"/twice":     ok + "Cache-Control: max-age=1000\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
		"/mended":    "HTTP/1.1 200 OK\r\nConnection : X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive : 1\r\nCache-Control : max-age=1000\r\nX-Own : 1\r\nX Y: 1\r\nX_Own: 1\r\nKaiku-Failed: 1\r\nX-Fold: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
		"/control":   ok + "X: a\x01b\r\nContent-Length: 5\r\n\r\nhello",
		"/nul":       ok + "X: a\x00b\r\nContent-Length: 5\r\n\r\nhello",
		"/tab":       ok + "X\t: a\r\nContent-Length: 5\r\n\r\nhello",
		"/status":    "HTTP/1.1 042 X\r\nConnection: close\r\nCache-Control: max-age=1000\r\nContent-Length: 5\r\n\r\nhello",
		"/unlimited": ok + "Cache-Control: max-age=1000\r\n\r\nhello",
	}
	e := p.newEdge(t, static(""), rawOrigin(t, answers))
	for _, method := range []string{"GET", "POST", "GET"} {
		for path := range answers {
			a := e.do(e.request(method, path, ""))
			e.settle()
			switch path {
			case "/chunked", "/length", "/lengths", "/control", "/nul", "/tab", "/status":
				if a.status != 502 || a.isHit() {
					t.Errorf("%s %s: %d %q, %v", method, path, a.status, a.body, a.header)
				}
				continue
			}
			a.wants(t, 200, "hello")
			for name, lines := range a.header {
				switch name {
				case "X-Hop", "Keep-Alive", "Connection", "Transfer-Encoding", "Kaiku-Failed", "X Y":
					t.Errorf("%s %s: the client sees %s: %q", method, path, name, lines)
				case "Content-Length":
					if !reflect.DeepEqual(lines, []string{"5"}) {
						t.Errorf("%s %s: Content-Length %q", method, path, lines)
					}
				}
			}
			if path == "/mended" && (a.header.Get("X-Own") != "1" || a.header.Get("X_Own") != "1" ||
				a.header.Get("X-Fold") != "a b" || a.header.Get("Cache-Control") == "") {
				t.Errorf("%s %s: %v", method, path, a.header)
			}
		}
	}
	if n := e.panics.Count(); n > 0 {
		t.Errorf("%d panics", n)
	}
	if p.secure() {
		return
	}
	// Over the line, by the lane and without.
	for _, path := range []string{"/mended", "/twice", "/unlimited"} {
		for range 4 {
			b := e.exchange(t, []byte("GET "+path+" HTTP/1.1\r\nHost: www.example\r\n\r\n"), false, true)
			head, _, _ := bytes.Cut(b, []byte("\r\n\r\n"))
			if n := bytes.Count(head, []byte("\nContent-Length:")); n != 1 ||
				bytes.Contains(head, []byte("Transfer-Encoding")) {
				t.Errorf("%s: %s", path, head)
			}
		}
	}
	if counted(t, e, "kaiku_edge_hit_lane_total") == 0 {
		t.Error("the lane did not answer")
	}
}

// Interim responses and trailers are cleaned too.
func TestMalformedInterimAndTrailers(t *testing.T) { overProtocols(t, testMalformedInterimAndTrailers) }

func testMalformedInterimAndTrailers(t *testing.T, p protocol) {
	e := p.newEdge(t, static(""), rawOrigin(t, map[string]string{
		"/interim":  "HTTP/1.1 103 Early Hints\r\nConnection : X-Hop\r\nX-Hop: 1\r\nLink : </a>\r\nX Y: 1\r\nContent-Length : 1\r\nKaiku-Tier: 1\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
		"/trailers": "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 3\r\nX-Sum: 1\r\nKaiku-Failed: 1\r\nX Y: 1\r\n\r\n",
	}))
	for _, method := range []string{"GET", "POST"} {
		var interim []textproto.MIMEHeader
		r := e.request(method, "/interim", "")
		r = r.WithContext(httptrace.WithClientTrace(r.Context(),
			&httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
				interim = append(interim, h)
				return nil
			}}))
		e.do(r).wants(t, 200, "hello")
		if want := []textproto.MIMEHeader{{"Link": {"</a>"}}}; !reflect.DeepEqual(interim, want) && p != protoHTTP3 {
			t.Errorf("%s: interim responses %v, want %v", method, interim, want)
		}
		resp, err := e.client.Do(e.request(method, "/trailers", ""))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if want := (http.Header{"X-Sum": {"1"}}); !reflect.DeepEqual(resp.Trailer, want) {
			t.Errorf("%s: trailers %v, want %v", method, resp.Trailer, want)
		}
	}
}

// twoLengths answers requests over HTTP/2 with two Content-Lengths, which net/http takes.
func twoLengths(t *testing.T) func(*Server, *site.Site) {
	t.Helper()
	file := newCertificate(t, time.Now().Add(time.Hour), "origin.example")
	cert, err := tls.LoadX509KeyPair(file.Cert, file.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0",
		&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = answerTwoLengths(conn)
			})
		}
	})
	return func(_ *Server, s *site.Site) {
		s.Origin.Origin.Servers = []origin.Server{{URL: &url.URL{Scheme: "https", Host: l.Addr().String()},
			ServerName: "origin.example"}}
		s.Origin.Origin.TLS = &tls.Config{InsecureSkipVerify: true}
	}
}

func answerTwoLengths(conn net.Conn) error {
	if _, err := io.CopyN(io.Discard, conn, int64(len(http2.ClientPreface))); err != nil {
		return err
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		return err
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		h, ok := frame.(*http2.HeadersFrame)
		if !ok {
			continue
		}
		var b bytes.Buffer
		enc := hpack.NewEncoder(&b)
		for _, field := range []hpack.HeaderField{{Name: ":status", Value: "200"},
			{Name: "cache-control", Value: "max-age=1000"}, {Name: "content-length", Value: "3"},
			{Name: "content-length", Value: "5"}} {
			_ = enc.WriteField(field)
		}
		err = errors.Join(f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: b.Bytes(),
			EndHeaders: true}), f.WriteData(h.StreamID, true, []byte("hello")))
		if err != nil {
			return err
		}
	}
}

func TestTwoContentLengths(t *testing.T) { overProtocols(t, testTwoContentLengths) }

func testTwoContentLengths(t *testing.T, p protocol) {
	e := p.newEdge(t, static(""), twoLengths(t))
	for _, method := range []string{"POST", "GET", "GET"} {
		a := e.do(e.request(method, "/a", ""))
		e.settle()
		a.wants(t, 200, "hello")
		if lines := a.header["Content-Length"]; len(lines) > 1 || len(lines) == 1 && lines[0] != "5" {
			t.Errorf("%s: Content-Length %q", method, lines)
		}
	}
}
