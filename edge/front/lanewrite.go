package front

import (
	"net"
	"net/http"
	"syscall"
)

// send writes a response. It returns how many bytes of the body it wrote.
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

// close releases the body.
func (h *Hit) close() {
	if h.File != nil {
		h.File.Close()
	}
	h.Body, h.File = nil, nil
}

// sendTCP writes a response over plain HTTP. It waits for a socket that doesn't take all at once,
// as the ordinary path does.
func (c *laneConn) sendTCP(head, body []byte) (int, error) {
	total, before := len(head)+len(body), len(head)
	var n int
	var err error
	if total <= cap(head) {
		head, body = append(head, body...), nil
		n, err = write(c.fd, head)
	} else {
		n, err = writeBoth(c.fd, head, body)
	}
	if err != nil && err != syscall.EAGAIN {
		return 0, err
	}
	err = nil
	for _, part := range [][]byte{head[min(n, len(head)):], body[min(max(n-len(head), 0), len(body)):]} {
		if len(part) > 0 && err == nil {
			var more int
			more, err = c.wait(c.clientConn, part, total)
			n += more
		}
	}
	return max(n-before, 0), err
}

// sendTLS writes a response over TLS.
func (c *laneConn) sendTLS(head, body []byte) (int, error) {
	before := len(head)
	taken := min(len(body), cap(head)-len(head))
	n, err := c.wait(c.tls, append(head, body[:taken]...), len(body)) // saves a TLS record for most responses
	if err == nil && taken < len(body) {
		var more int
		more, err = c.wait(c.tls, body[taken:], len(body))
		n += more
	}
	return max(n-before, 0), err
}

// wait writes p and waits until the client has taken it. held is how many bytes stay in memory
// meanwhile. The connection doesn't count as idle while wait runs.
func (c *laneConn) wait(conn net.Conn, p []byte, held int) (int, error) {
	c.busy.Store(true)
	defer c.busy.Store(false)
	return c.waiter(conn, held).Write(p)
}

// laneWriter is a connection of the lane as a ResponseWriter, for the write watchdog.
type laneWriter struct{ net.Conn }

// Header is not used, because the header block is already written.
func (laneWriter) Header() http.Header { return nil }

// WriteHeader is not used.
func (laneWriter) WriteHeader(int) {}
