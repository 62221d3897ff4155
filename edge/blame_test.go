package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/origin"
)

// What clients do wrong with the body of a request, after they have sent the first bytes of it.
const (
	endsEarly    = "ends before the announced length"
	endsLate     = "ends after the announced length"
	resets       = "resets"
	stalls       = "stalls"
	badTrailers  = "has malformed trailers"
	badChunk     = "has a malformed chunk"
	longChunk    = "has a chunk that is longer than it says"
	leavesMidway = "closes its connection"
)

// fault is one of them.
type fault struct {
	method string
	what   string
	want   int // status; 0 if the client gets none, or does not look for it
}

// send sends a request with it to an edge, and returns the status of the answer; 0 if there is
// none.
type sender func(t *testing.T, f fault) int

// logLines is a log that is looked through while it is written.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// with returns the lines that have a text.
func (l *logLines) with(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out strings.Builder
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, text) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// What is the fault of a client is answered so, and counts for nothing of how the origin's servers
// look, whatever the protocol.
func TestClientsFaultIsNotTheOrigins(t *testing.T) {
	const hit = "GET /hit HTTP/1.1\r\nHost: www.example\r\n\r\n"
	for _, timeout := range []time.Duration{0, 100 * time.Millisecond} {
		var log logLines
		e := newBlameEdge(t, timeout, &log)
		http1 := []fault{{"POST", endsEarly, 400}, {"POST", resets, 0}, {"POST", badChunk, 400},
			{"POST", longChunk, 400}, {"POST", badTrailers, 400}, {"POST", leavesMidway, 0}, {"GE T", stalls, 400}}
		frames := []fault{{"POST", endsEarly, 400}, {"POST", resets, 0}, {"POST", endsLate, 0},
			{"POST", badTrailers, 0}, {"POST", leavesMidway, 0}, {"GET", resets, 0}, {"GE T", endsEarly, 0}}
		if timeout > 0 {
			http1 = []fault{{"POST", stalls, 408}, {"GET", stalls, 408}}
			// a GET is answered whether its stream ends or not
			frames = []fault{{"POST", stalls, 408}, {"GET", stalls, 200}}
		}
		for _, c := range []struct {
			name   string
			send   sender
			faults []fault
		}{
			{"HTTP/1.1", e.faultyHTTP1(false, ""), http1},
			{"HTTP/1.1 after a hit", e.faultyHTTP1(false, hit), http1},
			{"HTTP/1.1 over TLS", e.faultyHTTP1(true, ""), http1},
			{"HTTP/2", e.faultyHTTP2(e.SecureAddr()), frames},
			{"HTTP/3", e.faultyHTTP3, frames},
			{"peers", e.faultyHTTP2(e.PeerAddr()), frames},
		} {
			for _, f := range c.faults {
				t.Run(c.name+", "+f.method+" "+f.what, func(t *testing.T) {
					for range 4 {
						if got := c.send(t, f); got != f.want && f.want != 0 {
							t.Errorf("answered with %d, want %d", got, f.want)
						}
					}
					testwait.Until(t, "all requests are over", func() bool { return e.front.Active() == 0 })
					e.wantNoBlame(t)
				})
			}
		}
		if got := log.with("origin"); got != "" {
			t.Errorf("the log has:\n%s", got)
		}
		if st := e.site.Origin.Origin.Status(); st.Faults == 0 {
			t.Error("no fault of a client is counted")
		}
	}
}

// newBlameEdge starts an edge before two servers that read what they are sent.
func newBlameEdge(t *testing.T, bodyTimeout time.Duration, log io.Writer) *testEdge {
	t.Helper()
	h := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hit" {
			w.Header().Set("Cache-Control", "max-age=1000")
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "well")
	}
	other := httptest.NewServer(http.HandlerFunc(h))
	t.Cleanup(other.Close)
	u, err := url.Parse(other.URL)
	if err != nil {
		t.Fatal(err)
	}
	return newSecure(t, h, 1, withPeers, func(s *Server, site *site.Site) {
		s.bodyTimeout, s.Log = bodyTimeout, slog.New(slog.NewTextHandler(log, nil))
		pool := site.Origin.Origin
		pool.Servers, pool.Retries, pool.Log = append(pool.Servers, origin.Server{URL: u}), 2, s.Log
	})
}

// wantNoBlame fails the test if a server of the origin failed anything, or anything was sent again.
func (e *testEdge) wantNoBlame(t *testing.T) {
	t.Helper()
	st := e.site.Origin.Origin.Status()
	for _, s := range st.Servers {
		if len(s.Failures) > 0 || s.Ejections > 0 || s.LastFailure != nil || s.State != "up" {
			t.Errorf("%s is %s, with the failures %v, %d ejections", s.Server, s.State, s.Failures, s.Ejections)
		}
	}
	if st.Retries > 0 {
		t.Errorf("%d retries", st.Retries)
	}
}

const (
	faultyBody = "hello"
	announced  = 2 * len(faultyBody)
)

// faultyHTTP1 sends over HTTP/1.1, on a connection on which other requests were answered before.
func (e *testEdge) faultyHTTP1(secure bool, before string) sender {
	return func(t *testing.T, f fault) int {
		conn := e.dialRaw(t, secure)
		defer conn.Close()
		r := bufio.NewReader(conn)
		if before != "" {
			for range 2 {
				_, _ = io.WriteString(conn, before)
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					return 0
				}
				_, _ = io.Copy(io.Discard, resp.Body)
			}
		}
		head := f.method + " / HTTP/1.1\r\nHost: www.example\r\n"
		chunked := head + "Transfer-Encoding: chunked\r\n\r\n"
		chunk := "5\r\n" + faultyBody + "\r\n"
		text := map[string]string{
			endsEarly: head + "Content-Length: 10\r\n\r\n" + faultyBody, resets: head + "Content-Length: 10\r\n\r\n" +
				faultyBody, leavesMidway: chunked + chunk,
			stalls: head + "Content-Length: 10\r\n\r\n" + faultyBody, badChunk: chunked + chunk + "ZZ\r\n",
			longChunk: chunked + "5\r\nhello, world\r\n0\r\n\r\n", badTrailers: chunked + chunk +
				"0\r\nno trailer\r\n\r\n",
		}[f.what]
		if _, err := io.WriteString(conn, text); err != nil {
			t.Error(err)
		}
		switch f.what {
		case endsEarly:
			if c, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = c.CloseWrite()
			}
		case resets:
			if c, ok := conn.(*net.TCPConn); ok {
				_ = c.SetLinger(0)
			}
			return 0
		case leavesMidway:
			return 0
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: f.method})
		if err != nil {
			t.Errorf("no answer: %v", err)
			return 0
		}
		return resp.StatusCode
	}
}

// faultyHTTP2 sends over HTTP/2.
func (e *testEdge) faultyHTTP2(addr net.Addr) sender {
	return func(t *testing.T, f fault) int {
		a := e.attackAt(addr, tls.VersionTLS13)
		defer a.conn.Close()
		_ = a.conn.SetDeadline(time.Now().Add(30 * time.Second))
		a.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		var length []hpack.HeaderField
		if f.what != badTrailers && f.method != "GET" {
			length = append(length, hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(announced)})
		}
		err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.headers(f.method, "/", length...),
			EndHeaders: true})
		data := []byte(faultyBody)
		switch f.what {
		case endsEarly:
			err = errors.Join(err, a.WriteData(1, true, data))
		case endsLate:
			err = errors.Join(err, a.WriteData(1, false, data), a.WriteData(1, true, make([]byte, announced)))
		case badTrailers:
			a.buf.Reset()
			_ = a.hp.WriteField(hpack.HeaderField{Name: ":path", Value: "/other"})
			err = errors.Join(err, a.WriteData(1, false, data),
				a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.buf.Bytes(), EndHeaders: true,
					EndStream: true}))
		default:
			if f.method != "GET" {
				err = errors.Join(err, a.WriteData(1, false, data))
			}
		}
		if err != nil {
			t.Error(err)
		}
		switch f.what {
		case resets:
			e.sentBody(t, f)
			_ = a.WriteRSTStream(1, http2.ErrCodeCancel)
			_ = a.WritePing(false, [8]byte{})
			_, _ = a.ReadFrame()
			return 0
		case leavesMidway:
			e.sentBody(t, f)
			return 0
		}
		got := a.answerTo(1)
		if got.err != nil && f.want != 0 {
			t.Errorf("no answer: %v", got.err)
		}
		return got.status
	}
}

// sentBody waits until a request with a body is on its way to the origin.
func (e *testEdge) sentBody(t *testing.T, f fault) {
	if f.method == "POST" {
		testwait.Until(t, "the origin has the request", func() bool {
			n := 0
			for _, s := range e.site.Origin.Origin.Status().Servers {
				n += s.InFlight
			}
			return n > 0
		})
	}
}

// faultyHTTP3 sends over HTTP/3.
func (e *testEdge) faultyHTTP3(t *testing.T, f fault) int {
	conn, err := e.dialQUIC(t.Context(), socket(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseWithError(0, "") }()
	s, err := conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Now().Add(30 * time.Second))
	q := rawRequest{method: f.method, authority: "www.example", target: "/"}
	fields := q.pseudo()
	if f.what != badTrailers && f.method != "GET" {
		fields = append(fields, hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(announced)})
	}
	const data, headers = 0, 1
	write := func(kind uint64, payload []byte) {
		b := quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload)))
		_, _ = s.Write(append(b, payload...)) // the edge may have reset it
	}
	write(headers, qpackBlock(fields))
	switch {
	case f.what == endsLate:
		write(data, []byte(faultyBody))
		write(data, make([]byte, announced))
		_ = s.Close()
	case f.what == badTrailers:
		write(data, []byte(faultyBody))
		write(headers, []byte("no field section"))
		_ = s.Close()
	case f.method != "GET":
		write(data, []byte(faultyBody))
	}
	switch f.what {
	case endsEarly:
		_ = s.Close()
	case resets:
		e.sentBody(t, f)
		s.CancelWrite(quic.StreamErrorCode(0x10c))
		s.CancelRead(quic.StreamErrorCode(0x10c))
		return 0
	case leavesMidway:
		e.sentBody(t, f)
		return 0
	}
	got := answerOnStream(s)
	if got.err != nil && f.want != 0 {
		t.Errorf("no answer: %v", got.err)
	}
	return got.status
}
