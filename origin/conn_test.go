package origin

import (
	"crypto/tls"
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
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}).Handshake()
			_ = c.(*net.TCPConn).SetLinger(0) // closes with a reset, so that the client's next write fails
			_ = c.Close()
		}
	}()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "https://"+l.Addr().String())}, BetweenBytesTimeout: time.Hour})
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
