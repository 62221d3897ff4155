package origin

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// If a server closes a connection before the transport has begun to read, as before the first bytes
// of HTTP/2, a failed write returns at once.
func TestClosedBeforeAnybodyReads(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cert, roots := selfSigned(t, time.Now().Add(time.Hour), "origin.example")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert},
				NextProtos: []string{"h2"}}).Handshake()
			_ = c.(*net.TCPConn).SetLinger(0) // closes with a reset, so that the client's next write fails
			_ = c.Close()
		}
	}()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "https://"+l.Addr().String())},
		BetweenBytesTimeout: time.Hour})
	conf := &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}}
	c, err := p.open(t.Context(), p.all[0], "tcp", "origin.example:443", conf)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	refused := make(chan error, 1)
	go func() {
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				refused <- err
				return
			}
		}
	}()
	select {
	case <-refused:
	case <-time.After(20 * time.Second):
		t.Fatal("the write waits for a reader that is not there")
	}
}

// refusingConn is a connection whose server takes the header of a request and nothing after it.
type refusingConn struct {
	net.Conn
	writes  int
	refused chan struct{}
}

func (c *refusingConn) Write(b []byte) (int, error) {
	if c.writes++; c.writes == 1 {
		return c.Conn.Write(b)
	}
	if c.writes == 2 {
		close(c.refused)
	}
	return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
}

// A server may respond and close the connection while it gets a body. The write that fails doesn't
// hide the response.
func TestResponseAfterAFailedWrite(t *testing.T) {
	t.Parallel()
	refused := make(chan struct{})
	addr := serveText(t, func() string {
		<-refused
		return "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"
	})
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "http://"+addr)}, Log: discardLog,
		BetweenBytesTimeout: time.Hour, FirstByteTimeout: time.Hour,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return &refusingConn{Conn: c, refused: refused}, err
		}})
	resp, err := p.Fetch(request(t, "POST", "/", "body"), FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("status %d", resp.StatusCode)
	}
	wantNoFailures(t, p)
}
