package front

import (
	"bufio"
	"cmp"
	"net"
	"net/http"
	"time"
)

// TunnelIdle is how long a tunnel may carry no bytes.
const TunnelIdle = 10 * time.Minute

// tunnel is the connection of a client after a protocol switch. It ends when it carries no bytes
// either way for wait, or when the client is too slow to take what is sent to it.
type tunnel struct {
	net.Conn
	wait  time.Duration
	timer *time.Timer
}

func (s *Server) tunnelIdle() time.Duration { return cmp.Or(s.TunnelIdle, TunnelIdle) }

// newTunnel makes a tunnel of a connection.
func (s *Server) newTunnel(c net.Conn) net.Conn {
	wait := s.tunnelIdle()
	return &tunnel{Conn: c, wait: wait, timer: time.AfterFunc(wait, func() {
		s.Metrics.idleTunnels.Inc()
		_ = c.Close()
	})}
}

// Read reads from the client.
func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.used(n)
	return n, err
}

// Write writes to the client. It fails if the client takes too long.
func (t *tunnel) Write(p []byte) (int, error) {
	if err := t.SetWriteDeadline(time.Now().Add(SendTimeout)); err != nil {
		return 0, err
	}
	n, err := t.Conn.Write(p)
	t.used(n)
	return n, err
}

// used restarts the idle timer if n > 0.
func (t *tunnel) used(n int) {
	if n > 0 && t.timer.Stop() { // otherwise it has expired, and the tunnel ends
		t.timer.Reset(t.wait)
	}
}

// Close ends the tunnel.
func (t *tunnel) Close() error {
	t.timer.Stop()
	return t.Conn.Close()
}

// Hijack returns the connection as a tunnel. http.ResponseController calls it.
func (r *Exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	r.hijacked = true
	return r.tunnel(conn), buffered, nil
}
