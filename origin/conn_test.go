package origin

import (
	"crypto/tls"
	"io"
	"net"
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

// A server may respond and close the connection before the transport's reader has begun. The write
// that fails waits for the reader over HTTP/1 all the same, so that the response counts.
func TestFailedWriteWaitsForTheReader(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.ReadFull(c, make([]byte, 1))
		_, _ = io.WriteString(c, "HTTP/1.1 413 No\r\n\r\n")
		_ = c.(*net.TCPConn).SetLinger(0) // the client's next write is refused
		_ = c.Close()
	}()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "http://"+l.Addr().String())},
		BetweenBytesTimeout: time.Hour})
	c, err := p.open(t.Context(), p.all[0], "tcp", "origin.example:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.(*http1Conn).raw.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-closed
	refused := make(chan struct{})
	go func() {
		defer close(refused)
		for {
			if _, err := c.(*http1Conn).raw.Write([]byte("x")); err != nil {
				return
			}
		}
	}()
	select {
	case <-refused:
		t.Fatal("the write fails before anything was read")
	case <-time.After(300 * time.Millisecond): // if it is going to, it does so at once
	}
	_, _ = io.Copy(io.Discard, c.(*http1Conn).raw)
	<-refused
}
