package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// begin serves a new connection.
func (c *laneConn) begin() {
	defer c.recover()
	conn := net.Conn(c.clientConn)
	if c.lane.tls != nil {
		t := c.shake()
		if t == nil {
			c.end()
			return
		}
		state := t.ConnectionState()
		if state.NegotiatedProtocol == "h2" && c.lane.http2 != nil {
			c.serveHTTP2(t)
			return
		}
		if p := state.NegotiatedProtocol; p != "" && p != "http/1.1" {
			c.hand(t)
			return
		}
		c.from = Conn{Secure: true, ServerName: state.ServerName}
		c.tls, conn = t, t
	}
	c.serve(conn)
}

// recover ends a connection whose goroutine panics, as net/http does.
func (c *laneConn) recover() {
	if p := recover(); p != nil {
		c.lane.server.Panics.Caught("the hit lane", p, "client", c.RemoteAddr())
		c.end()
	}
}

// shake does the handshake of TLS; nil if it fails.
func (c *laneConn) shake() *tls.Conn {
	conn := tls.Server(c.clientConn, c.lane.tls)
	ctx, cancel := context.WithTimeout(context.Background(), HeaderTimeout)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if err == nil {
		return conn
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader) {
		_ = c.SetWriteDeadline(time.Now().Add(HeaderTimeout))
		_, _ = io.WriteString(record.Conn,
			"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
	c.lane.log.Debug("TLS handshake failed", "client", c.RemoteAddr(), "error", err)
	return nil
}

func looksLikeHTTP(b [5]byte) bool {
	switch string(b[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}

// end closes the connection.
func (c *laneConn) end() {
	if c.tls != nil {
		_ = c.tls.Close()
	} else {
		_ = c.Close()
	}
	c.lane.leave(c)
}

// hand gives the connection to net/http.
func (c *laneConn) hand(conn net.Conn) {
	l := c.lane
	l.mu.Lock()
	c.handed = true
	turn := c.turn
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if c.turn == turn { // net/http may have given it back already
			l.drop(c)
		}
	}()
	select {
	case l.handed <- conn:
	case <-l.closed:
		_ = conn.Close() // to a handed one nobody has read from it is the end too
	}
}

// laneRest is what was read and is for net/http.
type laneRest struct {
	bytes []byte
	alone bool // it is one request, whole and without a body
}

// serve answers requests until the connection ends or one of them is for net/http.
func (c *laneConn) serve(conn net.Conn) {
	var rest laneRest
	if !c.lane.off {
		err := c.arm(time.Now(), c.firstWait())
		if err == nil {
			err = c.answerOn(&rest)
		}
		if err != nil {
			c.end()
			return
		}
	}
	h := &handed{Conn: conn, own: c}
	c.handling.Store(false)
	h.take(rest)
	if c.tls != nil {
		c.hand(&handedTLS{h, c.tls})
	} else {
		c.hand(h)
	}
}

// answerOn answers requests until one is for net/http, or an error.
func (c *laneConn) answerOn(rest *laneRest) error {
	if c.tls != nil {
		return c.serveTLS(rest)
	}
	return c.serveTCP(rest)
}

// firstWait is for how long the next request is waited for at first.
func (c *laneConn) firstWait() time.Duration {
	if c.asked.Load() {
		return IdleTimeout
	}
	return HeaderTimeout
}

var (
	errQuiet = errors.New("nothing was asked for")
	errBack  = errors.New("nothing was asked for while net/http had the connection")
)

// past is a deadline that is over.
var past = time.Unix(1, 0)

// arm sets the deadline of the wait for the next request.
func (c *laneConn) arm(now time.Time, wait time.Duration) error {
	c.armed, c.quick = now, wait == laneQuiet
	err := c.SetReadDeadline(now.Add(wait))
	if c.lane.draining.Load() {
		err = c.SetReadDeadline(past) // wake may have come before
	}
	return err
}

// heard notes that something was asked for. It does not for each request: the deadline is for long
// after the last one, and those who asked lately are the last to make room for others.
func (c *laneConn) heard(now time.Time) error {
	if (c.quick || c.tls != nil && c.visited == nil && c.asked.Load()) && now.Sub(c.armed) < laneQuiet/2 {
		return nil
	}
	c.asked.Store(true)
	c.lane.server.conns.follow(&c.client)
	if c.tls != nil && c.visited == nil {
		return c.arm(now, IdleTimeout)
	}
	return c.arm(now, laneQuiet)
}

// serveTCP answers requests over plain HTTP. It waits in one call of the poller for as long as it
// goes on, so that a request costs a read and a write: a read that takes less than there is room
// for has taken all, and the poller tells what comes later. But it tells nothing more of an end
// that came at the same time: that is looked for after the first request, which many clients send
// alone, and laneQuiet after others.
func (c *laneConn) serveTCP(rest *laneRest) error {
	for {
		var failed error
		err := c.raw.Read(func(fd uintptr) (over bool) {
			over, failed = c.answerReady(int(fd), rest)
			return over
		})
		switch {
		case err == nil:
			return failed
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case c.visited != nil:
			return errBack
		case c.lane.draining.Load():
			return c.last(rest)
		case !c.quick:
			return errQuiet
		}
		if err := c.arm(c.armed, IdleTimeout); err != nil {
			return err
		}
	}
}

// answerReady answers what has come. over is whether the lane is done with the connection.
func (c *laneConn) answerReady(fd int, rest *laneRest) (over bool, err error) {
	b := c.lane.buffers.Get().(*laneBuffers)
	defer c.lane.buffers.Put(b)
	c.fd = fd
	for kept := 0; ; {
		n, err := read(fd, b.in[kept:])
		if n <= 0 {
			rest.bytes = bytes.Clone(b.in[:kept]) // net/http waits for the rest of it
			switch {
			case err == syscall.EAGAIN && kept == 0:
				return false, nil
			case err == nil && kept == 0:
				err = io.EOF
			case err == syscall.EAGAIN:
				err = nil
			}
			return true, err
		}
		full := kept+n == len(b.in)
		left, kind, err := c.answer(b, b.in[:kept+n])
		switch {
		case err != nil:
			return true, err
		case kind == Raw && full && len(left) < len(b.in): // more of it may be there
			kept = copy(b.in[:], left)
			continue
		case len(left) > 0:
			rest.bytes, rest.alone = bytes.Clone(left), kind == Whole
			return true, nil
		case !full && c.looked:
			return false, nil
		}
		kept, c.looked = 0, true
	}
}

// read reads what has come.
func read(fd int, p []byte) (int, error) {
	for {
		if n, err := syscall.Read(fd, p); err != syscall.EINTR {
			return n, err
		}
	}
}

// last looks whether a request came when the edge began to end.
func (c *laneConn) last(rest *laneRest) error {
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	b := c.lane.buffers.Get().(*laneBuffers)
	defer c.lane.buffers.Put(b)
	err := c.raw.Read(func(fd uintptr) bool {
		if n, _ := read(int(fd), b.in[:]); n > 0 {
			rest.bytes = bytes.Clone(b.in[:n])
			size, kind := b.ask.Read(rest.bytes)
			rest.alone = kind != Raw && size == n
		}
		return true
	})
	if err == nil && rest.bytes == nil {
		return errQuiet
	}
	return err
}

// serveTLS answers requests over TLS.
func (c *laneConn) serveTLS(rest *laneRest) error {
	if c.in == nil {
		c.in = make([]byte, laneInput/2)
	}
	in := c.in
	for kept := 0; ; {
		n, err := c.tls.Read(in[kept:])
		if n == 0 {
			if c.visited != nil && kept == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
				return errBack
			}
			if kept == 0 || !errors.Is(err, io.EOF) {
				return err
			}
			rest.bytes = bytes.Clone(in[:kept])
			return nil
		}
		b := c.lane.buffers.Get().(*laneBuffers)
		left, kind, err := c.answer(b, in[:kept+n])
		c.lane.buffers.Put(b)
		switch {
		case err != nil:
			return err
		case kind == Raw && kept+n == len(in) && len(left) < len(in): // more of it may be there
			kept = copy(in, left)
			if err := c.arm(time.Now(), HeaderTimeout); err != nil {
				return err
			}
			c.armed = time.Time{} // for less long than the next request
			continue
		case len(left) > 0:
			rest.bytes, rest.alone = bytes.Clone(left), kind == Whole
			return nil
		}
		kept = 0
	}
}

// answer answers the requests that data begins with. It returns what is for net/http, and whether
// that is one request alone (Whole).
func (c *laneConn) answer(b *laneBuffers, data []byte) ([]byte, Kind, error) {
	s := c.lane.server
	for len(data) > 0 {
		began := time.Now()
		if err := c.heard(began); err != nil {
			return nil, Raw, err
		}
		n, kind := b.ask.Read(data)
		hit := &b.hit
		hit.Head = b.out[:0]
		if kind != ForLane || c.lane.draining.Load() || !s.Ready.Find(&b.ask, &c.from, began, hit) {
			if kind != Raw && n == len(data) {
				return data, Whole, nil
			}
			return data, Raw, nil
		}
		s.active.Add(1)
		s.Metrics.lane.Inc()
		c.requests.Add(1)
		c.credit.Add(int64(requestFree + 2*n))
		if !c.visited.begin() {
			hit.close()
			return nil, Raw, net.ErrClosed
		}
		sent, err := c.send(hit)
		if !c.visited.end() {
			err = net.ErrClosed
		}
		s.active.Add(-1)
		hit.Counters.Observe(int64(sent), began)
		s.sent.Add(uint64(sent))
		c.logAccess(&b.ask, hit.Site, hit.Status, int64(sent), began)
		if err != nil {
			return nil, Raw, err
		}
		data = data[n:]
	}
	return nil, ForLane, nil
}

// send writes an answer. It returns how many bytes of the body it wrote.
func (c *laneConn) send(hit *Hit) (int, error) {
	defer hit.close()
	switch {
	case hit.File != nil:
		return c.sendFile(hit.Head, hit.File)
	case c.tls != nil:
		return c.sendTLS(hit.Head, hit.Body)
	}
	return c.sendTCP(hit.Head, hit.Body)
}

// close ends the use of the body.
func (h *Hit) close() {
	if h.File != nil {
		h.File.Close()
	}
	h.Body, h.File = nil, nil
}

// sendTCP writes an answer over plain HTTP. What the socket does not take at once is waited for as
// the ordinary path waits.
func (c *laneConn) sendTCP(head, body []byte) (int, error) {
	total, before := len(head)+len(body), len(head)
	var n int
	var err error
	if total <= cap(head) {
		head, body = append(head, body...), nil
		n, err = syscall.Write(c.fd, head)
	} else {
		n, err = unix.Writev(c.fd, [][]byte{head, body})
	}
	if err != nil && err != syscall.EAGAIN && err != syscall.EINTR {
		return 0, err
	}
	n, err = max(n, 0), nil
	for _, part := range [][]byte{head[min(n, len(head)):], body[min(max(n-len(head), 0), len(body)):]} {
		if len(part) > 0 && err == nil {
			var more int
			more, err = c.wait(c.clientConn, part, total)
			n += more
		}
	}
	return max(n-before, 0), err
}

// sendTLS writes an answer over TLS.
func (c *laneConn) sendTLS(head, body []byte) (int, error) {
	before := len(head)
	taken := min(len(body), cap(head)-len(head))
	n, err := c.wait(c.tls, append(head, body[:taken]...), len(body)) // a record less for most
	if err == nil && taken < len(body) {
		var more int
		more, err = c.wait(c.tls, body[taken:], len(body))
		n += more
	}
	return max(n-before, 0), err
}

// wait writes p, a part of what is held in memory so long, which the client may take its time for;
// it is no idle connection meanwhile.
func (c *laneConn) wait(conn net.Conn, p []byte, held int) (int, error) {
	c.busy.Store(true)
	defer c.busy.Store(false)
	return c.waiter(conn, held).Write(p)
}

// laneWriter is what senders see of a connection of the lane.
type laneWriter struct{ net.Conn }

// Header is not used: the header block is written already.
func (laneWriter) Header() http.Header { return nil }

// WriteHeader is not used.
func (laneWriter) WriteHeader(int) {}
