package front

import (
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// What becomes of a connection that net/http closes.
const (
	keptBack  = iota // it ends
	givesBack        // the lane is to have it again
	gaveBack         // the lane has it
)

// handed is a connection that net/http has.
type handed struct {
	net.Conn // with TLS
	own      *laneConn
	pending  []byte       // what net/http has not read yet of what the lane has read
	alone    bool         // net/http has read, or is to read, nothing but one request without a body
	idle     atomic.Bool  // it is between requests
	back     atomic.Int32 // keptBack, givesBack or gaveBack

	answering sync.Mutex  // held while the lane answers: net/http takes the connection for idle, and may close it
	closing   atomic.Bool // to be closed by who holds answering
}

// begin begins an answer of the lane while net/http has the connection; h is nil if it has not. It
// reports false if the connection is closed.
func (h *handed) begin() bool {
	if h == nil {
		return true
	}
	h.answering.Lock()
	if h.closing.Load() {
		h.answering.Unlock()
		return false
	}
	return true
}

// end ends it. It reports false if the connection was closed meanwhile: net/http closes it again
// when its Read fails. Here it would wait for ever, as the lane answers inside of a read of the
// socket.
func (h *handed) end() bool {
	if h == nil {
		return true
	}
	h.answering.Unlock()
	return !h.closing.Load()
}

// close closes the connection, when the lane has answered. It does not wait for that.
func (h *handed) close() error {
	h.closing.Store(true)
	h.own.lane.setLate(h.own, true)
	if !h.answering.TryLock() {
		return nil
	}
	h.own.lane.setLate(h.own, false)
	// The close waits for a read of the socket to end, and an answer that begins inside of one
	// waits for the lock.
	h.answering.Unlock()
	return h.Conn.Close()
}

// Read reads what the lane has read, and then on. Between requests the lane answers what is for it,
// if it can have the connection again; after a while without a request it has it again, by net/http
// being told that the client has gone. While a request is answered, Read looks whether the client
// has gone.
func (h *handed) Read(p []byte) (int, error) {
	if h.idle.Load() && h.alone && len(h.pending) == 0 {
		if err := h.visit(); err != nil {
			return 0, err
		}
	}
	if len(h.pending) > 0 {
		n := copy(p, h.pending)
		if h.pending = h.pending[n:]; len(h.pending) == 0 {
			h.pending = nil
		}
		return n, nil
	}
	if h.alone {
		if err := h.watch(); err != nil {
			return 0, err
		}
	}
	n, err := h.Conn.Read(p)
	if n > 0 {
		h.alone = false
	}
	return n, err
}

// visit has the lane answer what is for it, until something is for net/http.
func (h *handed) visit() error {
	c := h.own
	c.visited = h
	defer func() { c.visited = nil }()
	var rest laneRest
	err := c.arm(time.Now(), laneQuiet)
	if err == nil {
		err = c.answerOn(&rest)
	}
	if errors.Is(err, errBack) {
		h.back.Store(givesBack)
		return io.EOF
	}
	h.take(rest)
	return err
}

// take has net/http read what the lane has read.
func (h *handed) take(rest laneRest) {
	h.pending, h.alone = rest.bytes, rest.alone
	if rest.alone {
		h.own.unread.Store(true)
		h.own.conns.unread.Add(1)
	}
}

// peek reads what has come and leaves it there. The package's own recvfrom makes an address each
// time.
func peek(fd int, p []byte) (int, error) {
	n, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
		syscall.MSG_PEEK, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// longestAlert is the length in bytes of a TLS record that no request fits in, while an alert does:
// as TLS 1.2 has it with CBC.
const longestAlert = 48

// watch waits until the client goes, or an alert of TLS is there to be read. A next request stays
// where it is: net/http looks for the end of its client while it answers, and a quick client asks
// again before it has stopped.
func (h *handed) watch() error {
	var gone error
	var head [5]byte
	err := h.own.raw.Read(func(fd uintptr) bool {
		n, err := peek(int(fd), head[:])
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
			return false
		case err != nil || n == 0:
			gone = cmp.Or(err, io.EOF)
			return true
		}
		return h.own.tls != nil && n == len(head) && int(head[3])<<8+int(head[4]) < longestAlert
	})
	return cmp.Or(gone, err)
}

// Close closes the connection, or gives it back to the lane.
func (h *handed) Close() error {
	c := h.own
	c.conns.arrived(&c.client)
	if h.back.Load() == gaveBack {
		return nil // it is the lane's, while net/http and its Shutdown may both close it
	}
	if !h.back.CompareAndSwap(givesBack, gaveBack) || !c.lane.take(c) {
		return h.close()
	}
	go func() {
		defer c.recover()
		c.asked.Store(true)
		c.serve(h.Conn)
	}()
	return nil
}

// handedTLS is one over TLS.
type handedTLS struct {
	*handed
	tls *tls.Conn
}

// ConnectionState is what net/http has in Request.TLS.
func (h *handedTLS) ConnectionState() tls.ConnectionState { return h.tls.ConnectionState() }
