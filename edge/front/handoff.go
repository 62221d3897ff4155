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

// What happens when net/http closes a connection that the lane handed off.
const (
	handoffFinal     = iota // the connection is closed
	handoffReturning        // the lane takes the connection back
	handoffReturned         // the lane has taken it back
)

// handedOff is a connection that the lane has handed off to net/http.
type handedOff struct {
	net.Conn // with TLS
	laneConn *laneConn
	pending  []byte       // bytes that the lane has read and net/http hasn't
	alone    bool         // net/http reads nothing but one request, which has no body
	idle     atomic.Bool  // it is between requests
	back     atomic.Int32 // handoffFinal, handoffReturning or handoffReturned

	answering sync.Mutex  // held while the lane answers; net/http sees an idle connection, and may close it
	closing   atomic.Bool // the holder of answering has to close the connection
}

// begin begins a response of the lane on a connection that net/http has; h is nil if net/http
// doesn't have it. It reports false if the connection is closed.
func (h *handedOff) begin() bool {
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

// end ends the response. It reports false if net/http closed the connection meanwhile. net/http
// closes it again when its Read fails. A close here would wait forever, because the lane answers
// inside a read of the socket.
func (h *handedOff) end() bool {
	if h == nil {
		return true
	}
	h.answering.Unlock()
	return !h.closing.Load()
}

// close closes the connection once the lane has answered. It doesn't wait for that.
func (h *handedOff) close() error {
	h.closing.Store(true)
	h.laneConn.lane.setLate(h.laneConn, true)
	if !h.answering.TryLock() {
		return nil
	}
	h.laneConn.lane.setLate(h.laneConn, false)
	// The close waits for a read of the socket to end, and an answer that begins inside of one
	// waits for the lock.
	h.answering.Unlock()
	return h.Conn.Close()
}

// Read returns what the lane has read, and then reads on. Between requests, the lane answers those
// that it can, if it may take the connection back. After a while without a request it takes the
// connection back, by reporting to net/http that the client has gone. While net/http answers a
// request, Read watches whether the client goes.
func (h *handedOff) Read(p []byte) (int, error) {
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

// visit lets the lane answer requests until one is for net/http.
func (h *handedOff) visit() error {
	c := h.laneConn
	c.visited = h
	defer func() { c.visited = nil }()
	var rest laneRest
	err := c.arm(time.Now(), laneIdle)
	if err == nil {
		err = c.answerOn(&rest)
	}
	if errors.Is(err, errReturned) {
		h.back.Store(handoffReturning)
		return io.EOF
	}
	h.setPending(rest)
	return err
}

// setPending makes the bytes that the lane has read the next ones that net/http reads.
func (h *handedOff) setPending(rest laneRest) {
	h.pending, h.alone = rest.bytes, rest.alone
	if rest.alone {
		h.laneConn.unread.Store(true)
		h.laneConn.conns.unread.Add(1)
	}
}

// peek reads bytes and leaves them in the socket. It doesn't use syscall.Recvfrom, which allocates
// an address each time.
func peek(fd int, p []byte) (int, error) {
	n, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
		syscall.MSG_PEEK, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// longestAlert is the length in bytes of a TLS record that an alert fits in and no request does.
// The longest alerts are those of TLS 1.2 with CBC.
const longestAlert = 48

// watch waits until the client goes, or until a TLS alert can be read. It leaves a next request in
// the socket: net/http watches for the end of its client while it answers, and a quick client sends
// the next request before that.
func (h *handedOff) watch() error {
	var gone error
	var head [5]byte
	err := h.laneConn.raw.Read(func(fd uintptr) bool {
		n, err := peek(int(fd), head[:])
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
			return false
		case err != nil || n == 0:
			gone = cmp.Or(err, io.EOF)
			return true
		}
		return h.laneConn.tls != nil && n == len(head) && int(head[3])<<8+int(head[4]) < longestAlert
	})
	return cmp.Or(gone, err)
}

// Close closes the connection, or returns it to the lane.
func (h *handedOff) Close() error {
	c := h.laneConn
	c.conns.arrived(&c.client)
	if h.back.Load() == handoffReturned {
		return nil // net/http and its Shutdown may both close it, but the lane has it
	}
	if !h.back.CompareAndSwap(handoffReturning, handoffReturned) || !c.lane.adopt(c) {
		return h.close()
	}
	go func() {
		defer c.recover()
		c.hasRequested.Store(true)
		c.serve(h.Conn)
	}()
	return nil
}

// handedOffTLS is a handed-off connection over TLS.
type handedOffTLS struct {
	*handedOff
	tls *tls.Conn
}

// ConnectionState returns the state that net/http puts into Request.TLS.
func (h *handedOffTLS) ConnectionState() tls.ConnectionState { return h.tls.ConnectionState() }
