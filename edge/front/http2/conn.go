package http2

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	frameHeader   = 9
	maxFrame      = 16 << 10 // largest frame payload, received and sent
	initialWindow = 1<<16 - 1
	maxWindow     = 1<<31 - 1
	readSize      = 4 << 10  // of the read buffer
	outSize       = 64 << 10 // of a write; a header block may exceed it
	lingerTime    = time.Second
	lingerBytes   = 256 << 10 // read at most after the end; see linger
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

// conn is a connection.
type conn struct {
	server *Server
	limits *Limits
	nc     net.Conn
	ctx    context.Context // of its requests
	cancel context.CancelFunc
	tls    *tls.ConnectionState // nil without TLS
	remote string
	peer   any // result of Ready.Open
	work   sync.WaitGroup

	// Only the reader uses these.
	waiter Waiter        // nc, if it is one; otherwise nil
	br     *bufio.Reader // nil while the connection is parked, as is fr
	fr     *xhttp2.Framer
	large  bool // fr has a large buffer
	block  headerBlock
	began  time.Time
	heard  time.Time // when the last frame arrived
	looked time.Time // when expireLater last looked for slow clients
	armed  time.Time // the read deadline; zero if it is not known
	noise  int       // frames that transferred nothing

	mu      sync.Mutex
	room    sync.Cond // signals less output, the end of writing, or the end of the connection
	err     error     // that ended the connection
	woken   bool      // the reader must check for work
	streams map[uint32]*stream
	orphans int    // handlers still running for closed streams
	lastID  uint32 // of the newest stream
	since   time.Time
	reset   []uint32 // streams the server reset lately; frames in flight for them are no error
	nreset  int
	early   map[uint32]priority // of streams not opened yet

	requests, resets int64
	tokens           float64 // requests that may still be canceled early
	refilled         time.Time

	asked      Request // last request passed to Ready
	rendered   []byte  // buffer of Ready's last header block
	closing    bool    // the write deadline is that of closing
	out        []byte  // frames to write ahead of bodies; nil if there are none
	ready      []*stream
	writing    bool
	fills      []fill    // of the current write; only the writer uses them
	writeArmed time.Time // the write deadline
	released   []release
	sendWindow int64 // of the connection
	promised   int64 // unsent bytes of responses of Ready
	initial    int64 // initial send window of a stream
	frameSize  int   // largest payload of DATA and HEADERS sent
	// table says what the client must hear of the dynamic table of the header blocks that it gets.
	table tableState
	turn  uint64
	moved int64 // bytes of bodies, both ways

	recvWindow int64 // bytes that the client may still send
	recvUnused int64 // bytes consumed and not yet returned by WINDOW_UPDATE

	pinged  time.Time // when the server sent PING; zero if no answer is due
	drained drainState
}

// drainState is the progress of a connection's graceful shutdown.
type drainState int

const (
	serving    drainState = iota
	announced             // GOAWAY announced the end
	goneAway              // GOAWAY named the last request
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
	c.waiter, _ = nc.(Waiter)
	c.unpark()
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

// serve reads frames until an error or the end, and then closes the connection.
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

// greet appends the server's settings, its connection preface.
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

// step reads and handles one frame.
func (c *conn) step() error {
	if c.br == nil || c.br.Buffered() < frameHeader {
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

// Payloads of the server's PING frames.
var (
	alivePing = [8]byte{'a', 'l', 'i', 'v', 'e'}
	drainPing = [8]byte{'d', 'r', 'a', 'i', 'n'}
)
