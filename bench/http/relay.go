package main

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// relay is a way to a peer on which each byte takes a while, over TCP and UDP. It loses nothing,
// and has no limit of bandwidth. It acknowledges TCP itself, so that TCP's slow start costs no
// time. QUIC's does.
type relay struct {
	to    string
	delay time.Duration // each way
	port  string
	tcp   net.Listener
	udp   net.PacketConn
	ctx   context.Context // ends with close
	end   context.CancelFunc
	work  sync.WaitGroup
}

// newRelay starts a relay to an address of loopback.
func newRelay(to string, delay time.Duration) (*relay, error) {
	r := &relay{to: to, delay: delay}
	for try := 0; ; try++ {
		var err error
		if r.tcp, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		if r.udp, err = net.ListenPacket("udp4", r.tcp.Addr().String()); err == nil {
			break
		}
		r.tcp.Close()
		if try == 10 {
			return nil, err
		}
	}
	r.port = strconv.Itoa(r.tcp.Addr().(*net.TCPAddr).Port)
	r.ctx, r.end = context.WithCancel(context.Background())
	r.work.Go(r.serveTCP)
	r.work.Go(r.serveUDP)
	return r, nil
}

// close ends the relay and its connections.
func (r *relay) close() error {
	r.end()
	err := errors.Join(r.tcp.Close(), r.udp.Close())
	r.work.Wait()
	return err
}

func (r *relay) serveTCP() {
	for {
		near, err := r.tcp.Accept()
		if err != nil {
			return
		}
		r.work.Go(func() {
			defer near.Close()
			time.Sleep(2 * r.delay) // the handshake of TCP
			far, err := net.Dial("tcp4", r.to)
			if err != nil {
				return
			}
			defer far.Close()
			stop := context.AfterFunc(r.ctx, func() { near.Close(); far.Close() })
			defer stop()
			var both sync.WaitGroup
			both.Go(func() { r.pass(far, near) })
			r.pass(near, far)
			both.Wait()
		})
	}
}

// late is what arrives at a time.
type late struct {
	at   time.Time
	data []byte
}

// pass passes on what comes from a connection, up to its end.
func (r *relay) pass(to, from net.Conn) {
	line := make(chan late, 1<<14)
	r.work.Go(func() {
		defer close(line)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				line <- late{time.Now().Add(r.delay), b[:n]}
			}
			if err != nil {
				return
			}
		}
	})
	for l := range line {
		time.Sleep(time.Until(l.at))
		if _, err := to.Write(l.data); err != nil {
			from.Close()
		}
	}
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

// serveUDP passes datagrams on. Each client has a socket to the peer.
func (r *relay) serveUDP() {
	ways := map[string]chan late{}
	defer func() {
		for _, way := range ways {
			close(way)
		}
	}()
	for {
		b := make([]byte, 2<<10)
		n, client, err := r.udp.ReadFrom(b)
		if err != nil {
			return
		}
		way := ways[client.String()]
		if way == nil {
			far, err := net.Dial("udp4", r.to)
			if err != nil {
				return
			}
			way = make(chan late, 1<<14)
			ways[client.String()] = way
			r.work.Go(func() { r.deliver(way, far) })
			back := make(chan late, 1<<14)
			r.work.Go(func() { r.deliver(back, answers{r.udp, client}) })
			r.work.Go(func() { r.collect(back, far) })
		}
		way <- late{time.Now().Add(r.delay), b[:n]}
	}
}

// deliver writes datagrams at their times, up to the end of the way. It closes the socket.
func (r *relay) deliver(way <-chan late, to io.WriteCloser) {
	defer to.Close()
	for l := range way {
		time.Sleep(time.Until(l.at))
		_, _ = to.Write(l.data) // a datagram may be lost
	}
}

// collect reads datagrams until the socket is closed.
func (r *relay) collect(way chan<- late, from net.Conn) {
	defer close(way)
	for {
		b := make([]byte, 2<<10)
		n, err := from.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			way <- late{time.Now().Add(r.delay), b[:n]}
		}
	}
}

// answers writes to one client of a socket.
type answers struct {
	net.PacketConn
	client net.Addr
}

func (a answers) Write(p []byte) (int, error) { return a.WriteTo(p, a.client) }

// Close leaves the socket to the other clients.
func (answers) Close() error { return nil }
