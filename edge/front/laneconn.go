package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// begin serves a new connection.
func (c *laneConn) begin() {
	defer c.recover()
	conn := net.Conn(c.clientConn)
	if c.lane.tls != nil {
		t := c.handshake()
		if t == nil {
			c.end()
			return
		}
		protocol, name := negotiated(t)
		switch {
		case protocol == "h2" && c.lane.http2 != nil:
			c.serveHTTP2(t)
			return
		case protocol != "" && protocol != "http/1.1":
			c.handOff(t)
			return
		}
		c.from = Conn{Secure: true, ServerName: name}
		c.tls, conn = t, t
	}
	c.serve(conn)
}

// negotiated returns the protocol of a connection, and the server name that the client sent. A
// ConnectionState on the stack of an idle connection would make the stack twice as large.
//
//go:noinline
func negotiated(t *tls.Conn) (protocol, serverName string) {
	state := t.ConnectionState()
	return state.NegotiatedProtocol, state.ServerName
}

// recover closes a connection whose goroutine panics, as net/http does.
func (c *laneConn) recover() {
	if p := recover(); p != nil {
		c.lane.server.Panics.Caught("the hit lane", p, "client", c.RemoteAddr())
		c.end()
	}
}

// handshake does the TLS handshake. It returns nil if that fails.
func (c *laneConn) handshake() *tls.Conn {
	conn := tls.Server(c.clientConn, c.lane.tls)
	// A context would cost a goroutine, and crypto/tls would keep it as long as the connection.
	err := c.SetDeadline(time.Now().Add(HeaderTimeout))
	if err == nil {
		err = conn.HandshakeContext(context.Background())
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
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

// handOff hands the connection off to net/http.
func (c *laneConn) handOff(conn net.Conn) {
	l := c.lane
	l.mu.Lock()
	c.handedOff = true
	turn := c.turn
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if c.turn == turn { // net/http may have returned it already
			l.drop(c)
		}
	}()
	select {
	case l.handedOff <- conn:
	case <-l.closed:
		_ = conn.Close() // net/http hasn't read from it, so this ends it
	}
}

// laneRest holds the bytes that the lane has read and that are for net/http.
type laneRest struct {
	bytes []byte
	alone bool // they are one complete request without a body
}

// serve answers requests until the connection ends or a request is for net/http.
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
	if c.gather == nil {
		c.gather = new(gather)
	}
	h := &handedOff{Conn: conn, laneConn: c}
	c.handling.Store(false)
	h.setPending(rest)
	if c.tls != nil {
		c.handOff(&handedOffTLS{h, c.tls})
	} else {
		c.handOff(h)
	}
}

// answerOn answers requests until one is for net/http, or an error occurs.
func (c *laneConn) answerOn(rest *laneRest) error {
	if c.tls != nil {
		return c.serveTLS(rest)
	}
	return c.serveTCP(rest)
}

// firstWait returns how long to wait for the next request at first.
func (c *laneConn) firstWait() time.Duration {
	if c.hasRequested.Load() {
		return IdleTimeout
	}
	return HeaderTimeout
}

var (
	errIdle     = errors.New("no request came")
	errReturned = errors.New("no request came while net/http had the connection")
)

// past is a deadline that has expired.
var past = time.Unix(1, 0)

// arm sets the deadline for the next request.
func (c *laneConn) arm(now time.Time, wait time.Duration) error {
	c.armed, c.quick = now, wait == laneIdle
	err := c.SetReadDeadline(now.Add(wait))
	if c.lane.draining.Load() {
		err = c.SetReadDeadline(past) // wake may have been called before
	}
	return err
}

// requestBegan records that the client has made a request. It doesn't do so for each one: the
// deadline is long after the last request, and clients with recent requests are the last to make
// room for others.
func (c *laneConn) requestBegan(now time.Time) error {
	if (c.quick || c.tls != nil && c.visited == nil && c.hasRequested.Load()) && now.Sub(c.armed) < laneIdle/2 {
		return nil
	}
	c.hasRequested.Store(true)
	c.lane.server.conns.markIdle(&c.client)
	if c.tls != nil && c.visited == nil {
		return c.arm(now, IdleTimeout)
	}
	return c.arm(now, laneIdle)
}

// serveTCP answers requests over plain HTTP. It stays inside one call of the poller for as long as
// it goes on, so a request costs one read and one write. A read that returns fewer bytes than there
// is room for has returned all, and the poller reports what comes later. But the poller doesn't
// report a client's end that came at the same time. serveTCP checks for it after the first request,
// which many clients send alone, and laneIdle after later ones.
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
			return errReturned
		case c.lane.draining.Load():
			return c.last(rest)
		case !c.quick:
			return errIdle
		}
		if err := c.arm(c.armed, IdleTimeout); err != nil {
			return err
		}
	}
}

// answerReady answers the requests that have arrived. over reports whether the lane is done with
// the connection.
func (c *laneConn) answerReady(fd int, rest *laneRest) (over bool, err error) {
	b := c.lane.buffers.Get().(*laneBuffers)
	defer c.lane.buffers.Put(b)
	c.fd = fd
	for kept := 0; ; {
		n, err := read(fd, b.in[kept:])
		if n <= 0 {
			rest.bytes = bytes.Clone(b.in[:kept]) // net/http waits for the rest
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

// last checks whether a request came when the edge began to shut down.
func (c *laneConn) last(rest *laneRest) error {
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	b := c.lane.buffers.Get().(*laneBuffers)
	defer c.lane.buffers.Put(b)
	err := c.raw.Read(func(fd uintptr) bool {
		if n, _ := read(int(fd), b.in[:]); n > 0 {
			rest.bytes = bytes.Clone(b.in[:n])
			size, kind := b.request.Read(rest.bytes)
			rest.alone = kind != Raw && size == n
		}
		return true
	})
	if err == nil && rest.bytes == nil {
		return errIdle
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
				return errReturned
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
			c.armed = time.Time{} // this deadline is shorter than that of the next request
			continue
		case len(left) > 0:
			rest.bytes, rest.alone = bytes.Clone(left), kind == Whole
			return nil
		}
		kept = 0
	}
}

// answer answers the requests at the beginning of data. It returns the bytes that are for net/http,
// and Whole if these are exactly one request.
func (c *laneConn) answer(b *laneBuffers, data []byte) ([]byte, Kind, error) {
	s := c.lane.server
	for len(data) > 0 {
		began := time.Now()
		if err := c.requestBegan(began); err != nil {
			return nil, Raw, err
		}
		n, kind := b.request.Read(data)
		hit := &b.hit
		hit.Head = b.out[:0]
		if kind != ForLane || c.lane.draining.Load() || !s.Ready.Find(&b.request, &c.from, began, hit) {
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
		c.logAccess(&b.request, hit.Site, hit.Status, int64(sent), began)
		if err != nil {
			return nil, Raw, err
		}
		data = data[n:]
	}
	return nil, ForLane, nil
}
