package front

import (
	"io"
	"net"
	"testing"
	"time"
)

// The lane answers inside a read of the socket. If net/http closes the connection meanwhile, it is
// closed after that read. Otherwise the edge would wait for the connection when it shuts down.
func TestLaneClosedWhileItAnswers(t *testing.T) {
	e := newFront(t, answer("x"))
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
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	cc := &laneConn{clientConn: &clientConn{Conn: conn, conns: e.conns, release: func() {}}, lane: e.newLane(l, nil)}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	h := &handedOff{Conn: cc.clientConn, laneConn: cc}
	over := make(chan bool)
	go func() {
		going := true
		_ = raw.Read(func(uintptr) bool {
			h.begin()
			_ = h.close()
			going = h.end()
			return true
		})
		over <- going
	}()
	select {
	case going := <-over:
		if going {
			t.Error("the lane goes on with a connection that is closed")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the read waits for itself")
	}
	_ = h.close()
	_ = client.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %v", err)
	}
}
