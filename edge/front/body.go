package front

import (
	"cmp"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Body is what is left to be sent of a stored body. It lies in files, or in memory. It is for one
// goroutine.
type Body interface {
	// Len is how many bytes are left.
	Len() int64
	// Read copies what comes next.
	io.Reader
	// WriteTo writes what is left, a chunk of 256 KiB at most at a time.
	io.WriterTo
	// WriteMapped is WriteTo without a copy, for a Writer that is done with what it was given when
	// its Write returns. That of HTTP/2 is not.
	WriteMapped(w io.Writer) (int64, error)
	// SendTo has a socket take what comes next, up to the end of a chunk, by sendfile(2) where that
	// is in a file. It doesn't wait: where the socket takes no more, the error is EAGAIN.
	SendTo(socket int) (int, error)
	Close()
}

// sendFile writes an answer whose body is in files. It returns how many bytes of the body it wrote.
func (c *laneConn) sendFile(head []byte, body Body) (int, error) {
	if c.tls != nil {
		n, err := io.ReadFull(body, head[len(head):min(cap(head), len(head)+int(body.Len()))])
		if err != nil {
			return 0, err
		}
		before := len(head)
		if n, err = c.wait(c.tls, head[:before+n], chunk); err != nil {
			return max(0, n-before), err
		}
		more, err := body.WriteMapped(laneWaiter{c})
		return n - before + int(more), err
	}
	n, err := writeMore(c.fd, head)
	if err == nil && n < len(head) || err == syscall.EAGAIN {
		_, err = c.wait(c.clientConn, head[n:], chunk)
	}
	total := 0
	for err == nil && body.Len() > 0 {
		if n, err = body.SendTo(c.fd); n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
		total += n
	}
	if err != syscall.EAGAIN {
		return total, err
	}
	more, err := c.waitFor(body)
	return total + int(more), err
}

// laneWaiter is where a body goes over TLS.
type laneWaiter struct{ c *laneConn }

// Write writes as wait does.
func (w laneWaiter) Write(p []byte) (int, error) { return w.c.wait(w.c.tls, p, chunk) }

// waitFor sends what is left of a body to a client that does not take all at once. It holds no
// buffer meanwhile.
func (c *laneConn) waitFor(body Body) (total int64, err error) {
	c.busy.Store(true)
	defer c.busy.Store(false)
	r := c.waiter(c.clientConn, 0)
	r.weight = 1
	for body.Len() > 0 && err == nil {
		var n int64
		r.senders.begin(r, time.Now())
		n, err = (&bodyPart{body: body, left: chunk}).sendTo(c.raw)
		r.senders.end(r)
		total += n
	}
	return total, err
}

// waiter is an Exchange for what is written to a client of the lane.
func (c *laneConn) waiter(conn net.Conn, held int) *Exchange {
	s, w := c.lane.server, laneWriter{conn}
	return &Exchange{ResponseWriter: w, control: http.NewResponseController(w), status: http.StatusOK,
		sent: new(atomic.Uint64), senders: &s.senders,
		client: &c.client, piece: chunk, holds: held}
}

// writeMore writes what is followed by more at once, as much of it as a socket takes.
func writeMore(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)),
			syscall.MSG_MORE, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

// bodyPart is at most left bytes of a body, for a socket.
type bodyPart struct {
	body Body
	left int64
}

// Read copies, for who writes the first bytes together with the header block.
func (b *bodyPart) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// sendTo has a socket take the part, and waits until it has. It may take more, up to the end of a
// chunk.
func (b *bodyPart) sendTo(raw syscall.RawConn) (sent int64, err error) {
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for b.left > 0 && b.body.Len() > 0 {
			n, e := b.body.SendTo(int(fd))
			sent, b.left = sent+int64(n), b.left-int64(n)
			switch {
			case e == syscall.EAGAIN:
				return false
			case e != nil || n == 0:
				failed = cmp.Or(e, io.ErrUnexpectedEOF)
				return true
			}
		}
		return true
	})
	return sent, cmp.Or(failed, err)
}

// ReadFrom sends a bodyPart from its file; net/http calls it once the header block is written.
func (h *handed) ReadFrom(src io.Reader) (int64, error) {
	part, ok := src.(*bodyPart)
	if !ok || h.own.tls != nil {
		return io.Copy(struct{ io.Writer }{h.Conn}, src)
	}
	n, err := part.sendTo(h.own.raw)
	h.own.sent.Add(n)
	return n, err
}

// SendBody writes what is left of a body, from its files where the connection can do that.
func (r *Exchange) SendBody(body Body) error {
	to, ok := r.ResponseWriter.(io.ReaderFrom) // HTTP/1.1 alone
	if !ok {
		_, err := body.WriteTo(r)
		return err
	}
	if !r.plain {
		_, err := body.WriteMapped(r)
		return err
	}
	for body.Len() > 0 {
		r.weight = 1
		r.senders.begin(r, time.Now())
		n, err := to.ReadFrom(&bodyPart{body: body, left: chunk})
		r.senders.end(r)
		r.bytes += n
		r.sent.Add(uint64(n))
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}
