package origin

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// A server may respond and close the connection while it gets a body. The write that fails doesn't
// hide the response.
func TestResponseBeforeAReset(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, 1))
			_, _ = io.WriteString(c, "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
			awaitDelivery(c.(*net.TCPConn))
			_ = c.(*net.TCPConn).SetLinger(0) // the client's next write is refused
			_ = c.Close()
		}
	}()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "http://"+l.Addr().String())},
		BetweenBytesTimeout: time.Hour, FirstByteTimeout: time.Hour})
	for range 50 {
		resp, err := p.Fetch(request(t, "POST", "/", strings.Repeat("x", 1<<20)), FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	wantNoFailures(t, p)
}

// awaitDelivery waits until the client's kernel has all that was written to c.
func awaitDelivery(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for {
			if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err != nil || n == 0 {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}
