package edge

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	headerTimeout  = 10 * time.Second // for a request's header block
	idleTimeout    = 2 * time.Minute  // of a connection between requests
	bodyTimeout    = time.Minute      // for the next bytes of a request's body
	sendTimeout    = time.Minute      // for a client to take 256 KiB at most
	maxHeaderBytes = 64 << 10         // of a request; more is answered with 431
	maxFields      = 200              // header lines of a request; more are answered with 431
	maxURL         = 8 << 10          // bytes of a request target; a longer one is answered with 414
	maxConns       = 1024             // of one client network: an IPv4 address or an IPv6 /64; loopback is not limited
	maxStreams     = 100              // requests at once on a connection of HTTP/2 or HTTP/3
	pingAfter      = 30 * time.Second // without a frame an HTTP/2 connection is asked whether it is there
	pingTimeout    = 15 * time.Second // for the answer
	drainTimeout   = 30 * time.Second // for what is under way when the edge stops
)

// timedBody is a request's body whose client has to go on sending.
type timedBody struct {
	io.ReadCloser
	client *client // nil if its connection is not limited

	mu sync.Mutex
	// control is nil once the request is answered. A transport may read on then, for an origin that answered before it had all of the body, and a ResponseController must not be used any more:
	// with HTTP/2 that panics, with HTTP/1.1 it changes the deadline of the next request.
	control *http.ResponseController
}

// Read waits at most bodyTimeout. At the end the deadline is taken back, because the server goes on reading the connection.
func (b *timedBody) Read(p []byte) (int, error) {
	b.setDeadline(time.Now().Add(bodyTimeout))
	n, err := b.ReadCloser.Read(p)
	if b.client != nil {
		b.client.credit.Add(2*int64(n) + 256) // for what it comes framed in, with HTTP/2 and TLS, even if it comes in small pieces
	}
	if err != nil {
		b.setDeadline(time.Time{})
	}
	return n, err
}

// setDeadline sets that of the next bytes.
func (b *timedBody) setDeadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.control != nil {
		_ = b.control.SetReadDeadline(t) // a connection without deadlines has none to overrun
	}
}

// answered has to be called before the handler returns.
func (b *timedBody) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.control = nil
}

// Close ends the body.
func (b *timedBody) Close() error {
	b.setDeadline(time.Time{})
	return b.ReadCloser.Close()
}

// knowBody finds out whether a request over HTTP/3 has a body where most have none: its header block doesn't tell, but for Content-Length.
func knowBody(r *http.Request) {
	if r.ProtoMajor < 3 || r.ContentLength >= 0 || r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodDelete &&
		r.Method != http.MethodOptions && r.Method != http.MethodTrace {
		return
	}
	var p [1]byte
	n, err := io.ReadFull(r.Body, p[:])
	if n == 0 && errors.Is(err, io.EOF) {
		r.Body, r.ContentLength = http.NoBody, 0
		return
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(p[:n]), r.Body), r.Body}
}
