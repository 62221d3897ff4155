package front

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
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
	c := &gatheringTLS{secure, own}
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
