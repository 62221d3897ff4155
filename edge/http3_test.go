package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// socket is a UDP socket of the test's.
func socket(t testing.TB) *quic.Transport {
	t.Helper()
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: u}
	t.Cleanup(func() {
		tr.Close()
		u.Close()
	})
	return tr
}

// dialQUIC makes a connection for HTTP/3.
func (e *testEdge) dialQUIC(ctx context.Context, tr *quic.Transport) (*quic.Conn, error) {
	conf := e.trust()
	conf.NextProtos = []string{http3.NextProtoH3}
	return tr.Dial(ctx, net.UDPAddrFromAddrPort(e.SecureAddr().(*net.TCPAddr).AddrPort()), conf, &quic.Config{})
}

// A client whose address changes goes on with its download.
func TestConnectionMigration(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 1<<20)
	e := newSecure(t, static(large, "Cache-Control: max-age=1000"), 1)
	c, err := e.dialQUIC(t.Context(), socket(t))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://www.example/large", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http3.Transport{}).NewClientConn(c).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	before := c.LocalAddr().String()
	if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	path, err := c.AddPath(socket(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := path.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := path.Switch(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(len(large))-1<<20 {
		t.Errorf("the rest of the download: %d bytes, %v", n, err)
	}
	if c.LocalAddr().String() == before {
		t.Error("the connection is where it was")
	}
}

// Beyond a rate of new connections, or some of one network, addresses have to be proved (Retry);
// clients that do get in.
func TestRetryUnderLoad(t *testing.T) {
	e := newSecure(t, static("x"), 1)
	proves := false
	for i := 0; i < 10*front.NewQUICBurst && !proves; i++ { // the burst grows again meanwhile
		proves = e.front.MustProve(&net.UDPAddr{IP: net.IPv4(203, 0, 113, byte(1+i%250))})
	}
	if !proves {
		t.Error("no Retry after the burst")
	}
	c, err := e.dialQUIC(t.Context(), socket(t))
	if err != nil {
		t.Fatalf("a client that proves its address: %v", err)
	}
	_ = c.CloseWithError(0, "")
}

// A client that opens streams and does not finish its header block is given up; so is one that
// takes its requests back at once.
func TestHTTP3Abuse(t *testing.T) {
	e := newSecure(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 1)
	c, err := e.dialQUIC(t.Context(), socket(t))
	if err != nil {
		t.Fatal(err)
	}
	str, err := c.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := str.Write([]byte{1, 100, 0}); err != nil { // a HEADERS frame of 100 bytes, of which one comes
		t.Fatal(err)
	}
	idle := func() bool {
		return e.front.Idle() == 1
	}
	testwait.Until(t, "the connection counts as idle", idle)
	e.front.Expire(time.Now().Add(front.IdleTimeout + front.HeaderTimeout))
	select {
	case <-c.Context().Done():
	case <-time.After(30 * time.Second):
		t.Error("half a header block keeps a connection")
	}

	if c, err = e.dialQUIC(t.Context(), socket(t)); err != nil {
		t.Fatal(err)
	}
	h := (&http3.Transport{}).NewClientConn(c)
	for i := 0; ; i++ {
		ctx, takeBack := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("https://www.example/%d", i), nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		before := e.front.Active()
		go func() {
			_, err := h.RoundTrip(r)
			done <- err
		}()
		testwait.Until(t, "the request is under way, or the connection gone",
			func() bool { return e.front.Active() > before || c.Context().Err() != nil })
		takeBack()
		<-done
		if c.Context().Err() != nil {
			break
		}
		testwait.Until(t, "it is taken back", func() bool { return e.front.Active() == 0 || c.Context().Err() != nil })
		if i > 10*front.ResetsFree {
			t.Fatal("requests are taken back without end")
		}
	}
	var closed *quic.ApplicationError
	if err := context.Cause(c.Context()); !errors.As(err, &closed) ||
		closed.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad) {
		t.Errorf("the connection ended by %v", err)
	}
}

// movedConn is a socket that reaches another address than it is told.
type movedConn struct {
	net.PacketConn
	to   atomic.Pointer[net.UDPAddr] // nil means no other
	from net.Addr
}

func (c *movedConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	if to := c.to.Load(); to != nil {
		addr = to
	}
	return c.PacketConn.WriteTo(p, addr)
}

func (c *movedConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, addr, err := c.PacketConn.ReadFrom(p)
	if c.to.Load() != nil {
		addr = c.from
	}
	return n, addr, err
}

// An edge that was started again, with the same secret, tells clients at once that their
// connections are gone (RFC 9000, 10.3).
func TestStatelessReset(t *testing.T) {
	udp := func(e *testEdge) *net.UDPAddr {
		return net.UDPAddrFromAddrPort(e.SecureAddr().(*net.TCPAddr).AddrPort())
	}
	before, after := newSecure(t, static("x"), 1), newSecure(t, static("x"), 1)
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	moved := &movedConn{PacketConn: u, from: udp(before)}
	tr := &quic.Transport{Conn: moved}
	t.Cleanup(func() {
		tr.Close()
		u.Close()
	})
	c, err := before.dialQUIC(t.Context(), tr)
	if err != nil {
		t.Fatal(err)
	}
	// An answer shows that the handshake is over for both. Before that the client's packets begin
	// with one of the handshake, of which another edge takes no notice.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://www.example/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http3.Transport{}).NewClientConn(c).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	stream, err := c.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// which knows nothing of the connection
	moved.to.Store(udp(after))
	if _, err := stream.Write([]byte(strings.Repeat("anybody there? ", 60))); err != nil {
		// a packet that is larger than a reset, and is sent again until it is answered
		t.Fatal(err)
	}
	<-c.Context().Done()
	var reset *quic.StatelessResetError
	if err := context.Cause(c.Context()); !errors.As(err, &reset) {
		t.Errorf("the connection ended by %v", err)
	}
}
