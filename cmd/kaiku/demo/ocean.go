package demo

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// This file simulates distance. Connections between the places of the demo are delayed by the time
// that light in fibre takes.

// spot is a place of the demo.
type spot struct {
	name string
	geodns.Place
}

const (
	fibreSpeed = 200.0 // km per millisecond: light in glass, two thirds of that in vacuum
	detour     = 1.5   // length of cables between large cities, divided by the great-circle distance
)

// oneWay is the time that a packet takes from one spot to another.
func oneWay(a, b spot) time.Duration {
	return time.Duration(a.Distance(b.Place) * detour / fibreSpeed * float64(time.Millisecond))
}

// oceanDial dials an address that is delay away. The handshake takes a round trip, and each byte
// takes delay.
func oceanDial(delay time.Duration) node.Dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		select {
		case <-time.After(2 * delay):
			return newDelayedConn(c, delay), nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// delayedConn is a connection whose bytes arrive later, in both directions.
type delayedConn struct {
	net.Conn
	delay   time.Duration
	in, out chan parcel
	done    chan struct{}
	close   sync.Once

	have []byte // arrived and not read yet; only Read uses it
	err  error
}

// parcel has bytes or an error, and the time when they arrive.
type parcel struct {
	at  time.Time
	b   []byte
	err error
}

// maxUnderway bounds the parcels on their way in one direction.
const maxUnderway = 256

func newDelayedConn(c net.Conn, delay time.Duration) *delayedConn {
	d := &delayedConn{Conn: c, delay: delay, in: make(chan parcel, maxUnderway), out: make(chan parcel, maxUnderway),
		done: make(chan struct{})}
	go d.send()
	go d.receive()
	return d
}

// send passes on written bytes when they are due.
func (d *delayedConn) send() {
	for {
		select {
		case p := <-d.out:
			time.Sleep(time.Until(p.at))
			if _, err := d.Conn.Write(p.b); err != nil {
				return
			}
		case <-d.done:
			return
		}
	}
}

func (d *delayedConn) receive() {
	for {
		b := make([]byte, 32<<10)
		n, err := d.Conn.Read(b)
		select {
		case d.in <- parcel{time.Now().Add(d.delay), b[:n], err}:
		case <-d.done:
			return
		}
		if err != nil {
			return
		}
	}
}

func (d *delayedConn) Read(p []byte) (int, error) {
	if len(d.have) == 0 && d.err == nil {
		select {
		case a := <-d.in:
			time.Sleep(time.Until(a.at))
			d.have, d.err = a.b, a.err
		case <-d.done:
			return 0, os.ErrClosed
		}
	}
	n := copy(p, d.have)
	d.have = d.have[n:]
	if n == 0 && d.err != nil {
		return 0, d.err
	}
	return n, nil
}

func (d *delayedConn) Write(p []byte) (int, error) {
	select {
	case d.out <- parcel{at: time.Now().Add(d.delay), b: append([]byte(nil), p...)}:
		return len(p), nil
	case <-d.done:
		return 0, os.ErrClosed
	}
}

// Close closes the connection. Bytes on their way are lost.
func (d *delayedConn) Close() error {
	d.close.Do(func() { close(d.done) })
	return d.Conn.Close()
}

// relay is a listener near the client that forwards connections to a distant place. It stands for
// an origin without a CDN.
type relay struct {
	listener net.Listener
	dial     node.Dialer
	to       string
}

// Listen does nothing, because the listener exists already.
func (r *relay) Listen(context.Context) error { return nil }

// Serve relays until ctx ends.
func (r *relay) Serve(ctx context.Context) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	stop := context.AfterFunc(ctx, func() { r.listener.Close() })
	defer stop()
	for {
		near, err := r.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		conns.Go(func() { r.forward(ctx, near) })
	}
}

func (r *relay) forward(ctx context.Context, near net.Conn) {
	defer near.Close()
	far, err := r.dial(ctx, "tcp", r.to)
	if err != nil {
		return
	}
	defer far.Close()
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	var there sync.WaitGroup
	there.Go(func() {
		_, _ = io.Copy(far, near) // either end may go at any time
		far.Close()
	})
	_, _ = io.Copy(near, far)
	near.Close()
	there.Wait()
}
