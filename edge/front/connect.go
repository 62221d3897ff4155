package front

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// A client opens a WebSocket over HTTP/2 with a CONNECT that names the protocol (RFC 8441). Origins
// speak WebSocket over HTTP/1.1, so the front makes the GET of RFC 6455 of it. Join makes a 200 of
// the origin's 101. The body of that response is what the origin sends, and the body of the request
// goes to the origin.

const (
	websocket    = "websocket"
	websocketKey = "Sec-Websocket-Key"
	// websocketGUID is what a server appends to the key, to prove that it speaks WebSocket (RFC
	// 6455, 1.3).
	websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	// tunnelBuffer is how many bytes of a client a tunnel copies at once.
	tunnelBuffer = 4 << 10
)

// acceptConnect makes a GET of a CONNECT for a WebSocket. It returns the status with which any
// other CONNECT is refused, and why.
func (x *Exchange) acceptConnect() (status int, why string) {
	r := x.Request
	protocol, ok := r.Header[":protocol"] // a client can't send a field of this name
	switch {
	case !ok:
		return http.StatusMethodNotAllowed, "not a forward proxy"
	case !strings.EqualFold(protocol[0], websocket):
		return http.StatusNotImplemented, "a CONNECT for another protocol than websocket"
	}
	var key [16]byte
	_, _ = rand.Read(key[:]) // it never fails
	h := r.Header
	delete(h, ":protocol")
	delete(h, "Content-Length")
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{websocket}
	h[websocketKey] = []string{base64.StdEncoding.EncodeToString(key[:])}
	x.incoming = r.Body
	x.Request = r.WithContext(r.Context()) // net/http must find its own body in its request
	x.Request.Method, x.Request.Body, x.Request.ContentLength = http.MethodGet, http.NoBody, 0
	return 0, ""
}

// WantsTunnel reports whether the request is a GET that was made of a CONNECT for a WebSocket.
// Join takes the answer to it.
func (x *Exchange) WantsTunnel() bool { return x.incoming != nil }

// Join takes the origin's answer to a request that WantsTunnel. It makes a 101 a 200 with the
// origin's bytes as its body, and sends the client's bytes to the origin until that body is closed.
// It leaves refusals as they are. Any other answer is an error, because the client would take it
// for a WebSocket.
func (x *Exchange) Join(resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols:
	case resp.StatusCode < 300:
		return fmt.Errorf("the origin answered %d to a request for a WebSocket", resp.StatusCode)
	default:
		return nil
	}
	h := resp.Header
	origin, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !httpcache.ListHas(h["Upgrade"], websocket) {
		return fmt.Errorf("the origin switched to %q, not to websocket", h.Get("Upgrade"))
	}
	sum := sha1.Sum([]byte(x.Request.Header.Get(websocketKey) + websocketGUID))
	if h.Get("Sec-Websocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
		return errors.New("the origin's Sec-WebSocket-Accept is wrong")
	}
	for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Accept", "Content-Length",
		"Transfer-Encoding"} {
		delete(h, name)
	}
	t := &joinedTunnel{exchange: x, origin: origin, wait: x.server.tunnelIdle(), sent: make(chan struct{})}
	t.timer = time.AfterFunc(t.wait, t.expire)
	t.release = context.AfterFunc(x.Request.Context(), t.end)
	go t.send()
	resp.StatusCode, resp.Status, resp.ContentLength, resp.Body = http.StatusOK, "200 OK", -1, t
	return nil
}

// joinedTunnel is a WebSocket between a stream of HTTP/2 and a connection to an origin. It is the
// body of the response on the stream. It ends when it carries no bytes either way for wait.
type joinedTunnel struct {
	exchange *Exchange
	origin   io.ReadWriteCloser
	wait     time.Duration
	timer    *time.Timer
	idle     atomic.Bool   // the timer has expired
	release  func() bool   // stops watching the context of the request
	sent     chan struct{} // closed when nothing more goes to the origin
}

// Read reads what the origin sends.
func (t *joinedTunnel) Read(p []byte) (int, error) {
	n, err := t.origin.Read(p)
	t.used(n)
	if n == 0 && t.idle.Load() {
		err = io.EOF
	}
	return n, err
}

// send copies what the client sends to the origin. When the client has sent everything, send closes
// its side of the connection to the origin. The origin may still send.
func (t *joinedTunnel) send() {
	defer close(t.sent)
	buf := make([]byte, tunnelBuffer)
	for {
		n, err := t.exchange.incoming.Read(buf)
		if from := t.exchange.client; from != nil {
			from.credit.Add(2*int64(n) + 256) // as for a body
		}
		t.used(n)
		var failed error
		if n > 0 {
			_, failed = t.origin.Write(buf[:n])
		}
		switch half, ok := t.origin.(interface{ CloseWrite() error }); {
		case failed == nil && err == nil:
		case failed == nil && err == io.EOF && ok && half.CloseWrite() == nil:
			return
		default:
			t.end()
			return
		}
	}
}

// used restarts the idle timer if n > 0.
func (t *joinedTunnel) used(n int) {
	if n > 0 && t.timer.Stop() { // otherwise it has expired, and the tunnel ends
		t.timer.Reset(t.wait)
	}
}

// expire ends a tunnel that was idle for too long.
func (t *joinedTunnel) expire() {
	t.exchange.server.Metrics.idleTunnels.Inc()
	t.idle.Store(true)
	t.end()
}

// end closes the connection to the origin.
func (t *joinedTunnel) end() { _ = t.origin.Close() }

// Close ends the tunnel.
func (t *joinedTunnel) Close() error {
	t.timer.Stop()
	t.release()
	err := t.origin.Close()
	_ = t.exchange.control.SetReadDeadline(past) // so that send ends
	<-t.sent
	return err
}
