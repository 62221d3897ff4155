package front

import (
	"bufio"
	"cmp"
	"net"
	"net/http"
	"time"
)

// TunnelIdle is how long a tunnel may be there with nothing going through it.
const TunnelIdle = 10 * time.Minute

// tunnel is the connection of a client that is no HTTP any more. It ends when nothing goes through
// it for long, either way, and when the client takes nothing of what is sent to it.
type tunnel struct {
	net.Conn
	wait  time.Duration
	timer *time.Timer
}

// newTunnel makes a tunnel of a connection.
func (s *Server) newTunnel(c net.Conn) net.Conn {
	wait := cmp.Or(s.TunnelIdle, TunnelIdle)
	return &tunnel{Conn: c, wait: wait, timer: time.AfterFunc(wait, func() {
		s.Metrics.idleTunnels.Inc()
		_ = c.Close()
	})}
}

// Read reads.
func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.used(n)
	return n, err
}

// Write writes, or fails if the client takes too long.
func (t *tunnel) Write(p []byte) (int, error) {
	if err := t.SetWriteDeadline(time.Now().Add(SendTimeout)); err != nil {
		return 0, err
	}
	n, err := t.Conn.Write(p)
	t.used(n)
	return n, err
}

// used notes that n bytes went through.
func (t *tunnel) used(n int) {
	if n > 0 && t.timer.Stop() { // else it ends
		t.timer.Reset(t.wait)
	}
}

// Close ends the tunnel.
func (t *tunnel) Close() error {
	t.timer.Stop()
	return t.Conn.Close()
}

// Hijack gives the connection away as a tunnel; http.ResponseController calls it.
func (r *Exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	r.hijacked = true
	return r.tunnel(conn), buffered, nil
}
