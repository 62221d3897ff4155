package http2

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	frameHeader   = 9
	maxFrame      = 16 << 10 // bytes of a frame that may come, and of the largest that is sent
	initialWindow = 1<<16 - 1
	maxWindow     = 1<<31 - 1
	readSize      = 4 << 10  // of the buffer for reading
	outSize       = 64 << 10 // of a write, but for what a header block is longer
	lingerTime    = time.Second
	lingerBytes   = 256 << 10 // that are read at most after the end, so that it is not lost to a reset
	endTimeout    = 5 * time.Second
)

var (
	errServerClosed = errors.New("the server is closed")
	errDone         = errors.New("all that was under way is done")
	errIdle         = errors.New("nothing was asked for")
	errPingTimeout  = errors.New("the client does not answer a ping")
	errReset        = errors.New("the client reset the request")
	errGone         = errors.New("the connection ended")
)

// connError is an error that ends the connection (RFC 9113, 5.4.1).
type connError struct {
	code xhttp2.ErrCode
	why  string
}

func (e *connError) Error() string { return fmt.Sprintf("%s: %s", e.code, e.why) }

func protocolError(why string) error { return &connError{xhttp2.ErrCodeProtocol, why} }

// flood is the error of a client that only costs.
func flood(why string) error { return &connError{xhttp2.ErrCodeEnhanceYourCalm, why} }

// conn is a connection.
type conn struct {
	server *Server
	limits *Limits
	nc     net.Conn
	ctx    context.Context // of its requests
	cancel context.CancelFunc
	tls    *tls.ConnectionState // nil without
	remote string
	peer   any // of Ready
	work   sync.WaitGroup

	// The reader's.
	br     *bufio.Reader
	fr     *xhttp2.Framer
	large  bool // fr has a large buffer
	block  headerBlock
	began  time.Time
	heard  time.Time // when something came last
	looked time.Time // when slow clients were looked for last
	armed  time.Time // the deadline of reading; zero if it is not known
	noise  int       // frames that only cost

	mu      sync.Mutex
	room    sync.Cond // there is less to write, nobody writes any more, or the connection has ended
	err     error     // that ended it
	woken   bool      // the reader is to look what there is to do
	streams map[uint32]*stream
	orphans int    // handlers of streams that are closed
	lastID  uint32 // of the newest stream
	since   time.Time
	reset   [64]uint32 // streams that the server reset lately: what is under way of them is no error
	nreset  int
	early   map[uint32]priority // of streams that are to come

	requests, resets int64
	tokens           float64 // requests that may still be taken back early
	refilled         time.Time

	rendered   []byte // what the last header block of Ready was rendered in
	closing    bool   // the deadline of writing is that of the end
	out        []byte // frames that are to be written first; nil if there are none
	ready      []*stream
	writing    bool
	writeArmed time.Time // the deadline of writing
	released   []release
	sendWindow int64 // of the connection
	initial    int64 // of a stream
	frameSize  int   // of DATA and HEADERS that are sent
	turn       uint64
	moved      int64 // bytes of bodies, both ways

	recvWindow int64 // what the client may still send
	recvUnused int64 // what was read of that, and is not given back yet

	pinged  time.Time // when the client was asked whether it is there; zero if it need not answer
	drained drainState
}

// drainState is how far a connection is with its end.
type drainState int

const (
	serving    drainState = iota
	announced             // the client was told that the end comes
	goneAway              // and which requests are the last
	drainLimit = time.Second
)

func newConn(ctx context.Context, s *Server, nc net.Conn, secure *tls.ConnectionState) *conn {
	now := time.Now()
	c := &conn{server: s, limits: &s.limits, nc: nc, tls: secure, began: now, heard: now, since: now, refilled: now,
		streams: map[uint32]*stream{},
		tokens:  float64(s.limits.Resets), sendWindow: initialWindow, initial: initialWindow, frameSize: maxFrame,
		recvWindow: int64(s.limits.ConnWindow)}
	c.room.L = &c.mu
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.br = bufio.NewReaderSize(nc, readSize)
	c.newFramer()
	c.block.decoder = hpack.NewDecoder(4<<10, c.block.add)
	c.block.decoder.SetMaxStringLength(s.limits.MaxHeaderBytes)
	c.block.limit = s.limits.MaxHeaderBytes
	if a := nc.RemoteAddr(); a != nil {
		c.remote = a.String()
	}
	if s.Ready != nil {
		info := Conn{Secure: secure != nil, RemoteAddr: c.remote, NetConn: nc}
		if secure != nil {
			info.ServerName = secure.ServerName
		}
		c.peer = s.Ready.Open(info)
	}
	c.greet()
	return c
}

func (c *conn) newFramer() {
	c.fr, c.large = xhttp2.NewFramer(nil, c.br), false
	c.fr.SetMaxReadFrameSize(maxFrame)
	c.fr.SetReuseFrames()
}

// serve reads until the connection ends, and ends it.
func (c *conn) serve() {
	err := c.start()
	for err == nil {
		err = c.step()
	}
	c.end(err)
	c.cancel()
	c.work.Wait()
}

// start exchanges the prefaces (RFC 9113, 3.4).
func (c *conn) start() error {
	c.flush()
	if err := c.within(c.limits.HeaderTimeout); err != nil {
		return err
	}
	var preface [len(xhttp2.ClientPreface)]byte
	if _, err := io.ReadFull(c.br, preface[:]); err != nil {
		return err
	}
	if string(preface[:]) != xhttp2.ClientPreface {
		return protocolError("no preface")
	}
	fh, err := c.fr.ReadFrameHeader()
	switch {
	case err != nil:
		return err
	case fh.Type != xhttp2.FrameSettings || fh.Flags.Has(xhttp2.FlagSettingsAck):
		return protocolError("the first frame is not SETTINGS")
	}
	return c.frame(fh)
}

// greet appends the settings of the server, which are the first that it sends.
func (c *conn) greet() {
	settings := []xhttp2.Setting{
		{ID: xhttp2.SettingMaxConcurrentStreams, Val: uint32(c.limits.MaxStreams)},
		{ID: xhttp2.SettingInitialWindowSize, Val: uint32(c.limits.StreamWindow)},
		{ID: xhttp2.SettingMaxHeaderListSize, Val: uint32(c.limits.MaxHeaderBytes)},
		{ID: xhttp2.SettingNoRFC7540Priorities, Val: 1},
	}
	if c.server.ExtendedConnect {
		settings = append(settings, xhttp2.Setting{ID: xhttp2.SettingEnableConnectProtocol, Val: 1})
	}
	b := appendFrame(c.outBuffer(), 6*len(settings), xhttp2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = append(b, byte(s.ID>>8), byte(s.ID), byte(s.Val>>24), byte(s.Val>>16), byte(s.Val>>8), byte(s.Val))
	}
	c.out = b
	if more := c.limits.ConnWindow - initialWindow; more > 0 {
		c.out = appendWindowUpdate(c.out, 0, uint32(more))
	}
}

// step reads a frame.
func (c *conn) step() error {
	if c.br.Buffered() < frameHeader {
		if err := c.await(); err != nil {
			return err
		}
	}
	fh, err := c.fr.ReadFrameHeader()
	if err != nil {
		return err
	}
	return c.frame(fh)
}

// await has what there is to write be written, and waits for a frame.
func (c *conn) await() error {
	c.flush()
	if c.large {
		c.newFramer()
	}
	for {
		if err := c.arm(); err != nil {
			return err
		}
		_, err := c.br.Peek(frameHeader)
		if err == nil {
			c.heard = time.Now()
			c.expireLater(c.heard)
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := c.overdue(time.Now()); err != nil {
			return err
		}
		c.flush()
	}
}

// arm sets the deadline of reading to when there may be something else to do. One that comes sooner
// does no harm.
func (c *conn) arm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.woken {
		return nil
	}
	want := c.heard.Add(c.limits.PingAfter)
	if !c.pinged.IsZero() {
		want = c.pinged.Add(c.limits.PingTimeout)
	}
	if end := c.since.Add(c.limits.IdleTimeout); c.idle() && end.Before(want) {
		want = end
	}
	if end := time.Now().Add(c.limits.WriteTimeout / 2); end.Before(want) && c.stalls() {
		want = end
	}
	if c.armed.IsZero() || c.armed.After(want) {
		c.armed = want
		return c.nc.SetReadDeadline(want)
	}
	return nil
}

// within sets the deadline of reading the rest of a frame.
func (c *conn) within(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.woken {
		return c.over(time.Now())
	}
	c.armed = time.Now().Add(d)
	return c.nc.SetReadDeadline(c.armed)
}

// overdue does what is to be done when nothing came until a deadline.
func (c *conn) overdue(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken, c.armed = false, time.Time{}
	if err := c.over(now); err != nil {
		return err
	}
	c.expire(now)
	if c.heard.After(c.pinged) {
		c.pinged = time.Time{}
	}
	switch {
	case !c.pinged.IsZero():
		if now.Sub(c.pinged) >= c.limits.PingTimeout {
			return errPingTimeout
		}
	case now.Sub(c.heard) >= c.limits.PingAfter:
		c.pinged = now
		c.out = appendPing(c.outBuffer(), false, alivePing)
	}
	return nil
}

// over returns why the connection is to end; nil if it is not. c.mu is held.
func (c *conn) over(now time.Time) error {
	switch {
	case c.err != nil:
		return c.err
	case !c.idle():
		return nil
	case c.drained == goneAway:
		return errDone
	case now.Sub(c.since) >= c.limits.IdleTimeout:
		return errIdle
	}
	return nil
}

// idle reports whether there is no request. c.mu is held.
func (c *conn) idle() bool { return len(c.streams)+c.orphans == 0 }

// wake has the reader look what there is to do. c.mu is held.
func (c *conn) wake() {
	c.woken = true
	_ = c.nc.SetReadDeadline(past)
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// What pings of the server say.
var (
	alivePing = [8]byte{'a', 'l', 'i', 'v', 'e'}
	drainPing = [8]byte{'d', 'r', 'a', 'i', 'n'}
)

// abort ends the connection at once.
func (c *conn) abort(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// fail notes that the connection has ended, and has everybody notice. c.mu is held.
func (c *conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.wake()
	_ = c.nc.SetWriteDeadline(past)
	for _, s := range c.streams {
		c.remove(s, errGone)
	}
	c.room.Broadcast()
}

// drain has the connection end: the client is told that it does, and a round trip later which
// requests are the last, so that none is lost that is on its way.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drained != serving || c.err != nil {
		return
	}
	c.drained = announced
	c.out = appendPing(appendGoAway(c.outBuffer(), maxWindow, xhttp2.ErrCodeNo), false, drainPing)
	c.kick()
	timer := time.AfterFunc(drainLimit, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.goAway()
	})
	context.AfterFunc(c.ctx, func() { timer.Stop() })
}

// goAway tells which requests are the last. c.mu is held.
func (c *conn) goAway() {
	if c.drained != announced || c.err != nil {
		return
	}
	c.drained = goneAway
	c.out = appendGoAway(c.outBuffer(), c.lastID, xhttp2.ErrCodeNo)
	c.kick()
	if c.idle() {
		c.wake()
	}
}

// end tells the client why the connection ends, and closes it.
func (c *conn) end(err error) {
	code, tell := codeOf(err)
	c.mu.Lock()
	tell = tell && c.err == nil
	if code != xhttp2.ErrCodeNo {
		c.server.Log.Debug("HTTP/2 connection ended", "client", c.remote, "error", err)
	}
	if code == xhttp2.ErrCodeEnhanceYourCalm && c.server.Flooding != nil {
		c.server.Flooding(c.nc, err.Error())
	}
	for _, s := range c.streams {
		c.remove(s, errGone)
	}
	if tell {
		c.say(code)
	}
	c.fail(errGone)
	for c.writing {
		c.room.Wait()
	}
	if c.out != nil {
		putBuffer(c.out)
		c.out = nil
	}
	released := c.released
	c.released = nil
	c.mu.Unlock()
	for _, r := range released {
		r.done(r.sent, false)
	}
	if tell {
		c.linger()
	}
	_ = c.nc.Close()
}

// say writes what is to be written, and GOAWAY after it. c.mu is held.
func (c *conn) say(code xhttp2.ErrCode) {
	c.drained = goneAway
	c.out = appendGoAway(c.outBuffer(), c.lastID, code)
	c.closing, c.writeArmed = true, time.Now().Add(endTimeout)
	_ = c.nc.SetWriteDeadline(c.writeArmed)
	for c.writing {
		c.room.Wait()
	}
	c.writing = true
	for c.out != nil && c.err == nil {
		c.writeOnce()
	}
	c.writing = false
}

// linger reads what still comes, as a connection that is closed with bytes unread is reset, and the
// client may not see the end.
func (c *conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok {
		return
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(lingerTime))
	if half.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
}

// codeOf returns the error code that a client is told of an error, and whether it is told at all.
func codeOf(err error) (code xhttp2.ErrCode, tell bool) {
	var own *connError
	var framing xhttp2.ConnectionError
	var stream xhttp2.StreamError
	switch {
	case errors.As(err, &own):
		return own.code, true
	case errors.As(err, &framing):
		return xhttp2.ErrCode(framing), true
	case errors.As(err, &stream):
		return stream.Code, true
	case errors.Is(err, xhttp2.ErrFrameTooLarge), errors.Is(err, io.ErrUnexpectedEOF):
		return xhttp2.ErrCodeFrameSize, true
	case errors.Is(err, errDone), errors.Is(err, errIdle), errors.Is(err, errPingTimeout), errors.Is(err,
		os.ErrDeadlineExceeded):
		return xhttp2.ErrCodeNo, true
	}
	return xhttp2.ErrCodeNo, false
}
