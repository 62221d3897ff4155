package front

import (
	"cmp"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

// Body is the rest of a stored body that is to be sent. Its bytes are in files or in memory. One
// goroutine may use it.
type Body interface {
	// Len is how many bytes are left.
	Len() int64
	// Read copies the next bytes.
	io.Reader
	// WriteTo writes the rest of the body, in chunks of at most 256 KiB.
	io.WriterTo
	// WriteMapped is WriteTo without a copy. The Writer must not use the bytes after its Write
	// returns; the one of HTTP/2 does.
	WriteMapped(w io.Writer) (int64, error)
	// AppendHead appends the next bytes to a header block, as many as are cheaper to send with it.
	AppendHead(head []byte) []byte
	// SendTo sends the next bytes to a socket, up to the end of a chunk. Bytes of a file are sent
	// with sendfile(2). It doesn't wait: if the socket takes no more, the error is EAGAIN.
	SendTo(socket int) (int, error)
	Close()
}

// sendFile writes a response whose body is in files. It returns the number of bytes of the body
// that it wrote.
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
	before := len(head)
	head = body.AppendHead(head)
	n, err := writeMore(c.fd, head)
	if err == nil && n < len(head) || err == syscall.EAGAIN {
		var more int
		more, err = c.wait(c.clientConn, head[n:], chunk)
		n += more
	}
	total := max(0, n-before)
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

// laneWaiter writes a body over TLS.
type laneWaiter struct{ c *laneConn }

// Write waits for the client as laneConn.wait does.
func (w laneWaiter) Write(p []byte) (int, error) { return w.c.wait(w.c.tls, p, chunk) }

// waitFor sends the rest of a body to a client that is too slow to take it at once. It holds no
// buffer while it waits.
func (c *laneConn) waitFor(body Body) (total int64, err error) {
	c.busy.Store(true)
	defer c.busy.Store(false)
	r := c.waiter(c.clientConn, 0)
	r.weight = 1
	for body.Len() > 0 && err == nil {
		var n int64
		r.watchdog.begin(r, time.Now())
		n, err = (&bodyPart{body: body, left: chunk}).sendTo(c.raw)
		r.watchdog.end(r)
		total += n
	}
	return total, err
}

// waiter returns an Exchange through which the lane writes to a client that it has to wait for.
func (c *laneConn) waiter(conn net.Conn, held int) *Exchange {
	s, w := c.lane.server, laneWriter{conn}
	return &Exchange{ResponseWriter: w, control: http.NewResponseController(w), status: http.StatusOK,
		sent: new(atomic.Uint64), watchdog: &s.watchdog,
		client: &c.client, piece: chunk, holds: held}
}

// bodyPart is at most left bytes of a body, to be sent to a socket.
type bodyPart struct {
	body Body
	left int64
}

// Read copies the first bytes, for a caller that writes them together with the header block.
func (b *bodyPart) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// sendTo sends the part to a socket and waits until the socket has taken all of it. It may send
// more, up to the end of a chunk.
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

// ReadFrom sends a bodyPart from its file. net/http calls it after it has written the header block.
func (h *handedOff) ReadFrom(src io.Reader) (int64, error) {
	part, ok := src.(*bodyPart)
	if !ok || h.laneConn.tls != nil {
		return io.Copy(struct{ io.Writer }{h.Conn}, src)
	}
	n, err := part.sendTo(h.laneConn.raw)
	h.laneConn.sent.Add(n)
	return n, err
}

// SendBody writes the rest of a body. Over plain HTTP/1.1 it sends the bytes from their files.
func (r *Exchange) SendBody(body Body) error {
	if r.page != nil {
		return nil // it was sent in place of the body
	}
	to, ok := r.ResponseWriter.(io.ReaderFrom) // HTTP/1.1 only
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
		r.watchdog.begin(r, time.Now())
		n, err := to.ReadFrom(&bodyPart{body: body, left: chunk})
		r.watchdog.end(r)
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
