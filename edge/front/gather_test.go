package front

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// countedConn records the size of each write.
type countedConn struct {
	net.Conn
	writes []int
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes = append(c.writes, len(p))
	return c.Conn.Write(p)
}

// One Write over TLS becomes one write of the socket, however many records it has.
func TestGatheredRecords(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan []byte, 1)
	go func() {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			got <- nil
			return
		}
		b, _ := io.ReadAll(c)
		_ = c.Close()
		got <- b
	}()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	counted := &countedConn{Conn: raw}
	own := &clientConn{Conn: counted}
	secure := tls.Server(own, &tls.Config{Certificates: []tls.Certificate{newCertificate(t)}})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	own.gather = new(gather)
	c := &gatheringTLS{Conn: secure, own: own}
	var want bytes.Buffer
	for i, size := range []int{100, 64 << 10, 2000, 64 << 10, 64 << 10, 64 << 10, 100} {
		p := bytes.Repeat([]byte{byte(i)}, size)
		want.Write(p)
		counted.writes = nil
		before := own.sent.Load()
		if n, err := c.Write(p); n != size || err != nil {
			t.Fatalf("%d bytes: %d, %v", size, n, err)
		}
		if len(counted.writes) != 1 || own.sent.Load()-before != int64(counted.writes[0]) {
			t.Errorf("%d bytes are written as %v, counted as %d", size, counted.writes, own.sent.Load()-before)
		}
	}
	if err := secure.CloseWrite(); err != nil {
		t.Error(err)
	}
	_ = raw.(*net.TCPConn).CloseWrite()
	if b := <-got; !bytes.Equal(b, want.Bytes()) {
		t.Errorf("%d bytes came, of %d", len(b), want.Len())
	}
	_ = raw.Close()
	if _, err := c.Write(make([]byte, 64<<10)); err == nil {
		t.Error("no error of a connection that is closed")
	}
}

// Wait returns when the client has sent something, when the deadline expires, and when the client
// has gone. It reads nothing.
func TestWaitForInput(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := &gatheringTLS{Conn: tls.Server(raw, &tls.Config{})}
	if c.raw, err = raw.(*net.TCPConn).SyscallConn(); err != nil {
		t.Fatal(err)
	}
	_ = raw.SetReadDeadline(past)
	if err := c.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("at the deadline: %v", err)
	}
	_ = raw.SetReadDeadline(time.Now().Add(30 * time.Second))
	go func() { _, _ = io.WriteString(client, "x") }()
	b := make([]byte, 2)
	if err := c.Wait(); err != nil {
		t.Errorf("when something came: %v", err)
	}
	if n, err := raw.Read(b); n != 1 || err != nil {
		t.Errorf("read %d bytes: %v", n, err)
	}
	go client.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("when the client has gone: %v", err)
	}
	if _, err := raw.Read(b); err != io.EOF {
		t.Errorf("read: %v", err)
	}
}
