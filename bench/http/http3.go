package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// loadHTTP3 loads a peer over HTTP/3. On each connection, as many requests are under way as the
// case has streams. It checks the length and status of every response, and all bytes of the first
// one on each stream.
func (b *bench) loadHTTP3(ctx context.Context, i *instance, c testCase) (o outcome, err error) {
	// All connections share one socket and one transport, as in a real client. Connection IDs tell
	// them apart.
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return o, err
	}
	defer socket.Close()
	transport := &quic.Transport{Conn: socket}
	defer transport.Close()
	to, err := net.ResolveUDPAddr("udp4", i.addr(c.Proto))
	if err != nil {
		return o, err
	}
	h3 := &http3.Transport{DisableCompression: true}
	defer h3.Close()
	var conns []*http3.ClientConn
	for range c.Conns {
		// The flow control windows must never hold up a response of 1 MiB.
		conn, err := transport.Dial(ctx, to, clientTLS(http3.NextProtoH3),
			&quic.Config{InitialStreamReceiveWindow: 4 * mib, MaxStreamReceiveWindow: 8 * mib,
				InitialConnectionReceiveWindow: 16 * mib, MaxConnectionReceiveWindow: 32 * mib})
		if err != nil {
			return o, err
		}
		defer conn.CloseWithError(0, "")
		conns = append(conns, h3.NewClientConn(conn))
	}
	workers := make([]http3Worker, c.Conns*c.Streams)
	began := time.Now()
	var wg sync.WaitGroup
	for k := range workers {
		w := &workers[k]
		wg.Go(func() { w.run(ctx, conns[k%len(conns)], i, c, k, began.Add(b.length)) })
	}
	wg.Wait()
	o.Took = time.Since(began)
	var took []time.Duration
	for _, w := range workers {
		err = errors.Join(err, w.err)
		took = append(took, w.took...)
	}
	o.Requests, o.Bytes = len(took), int64(len(took))*c.Body
	o.P50, o.P99 = percentiles(took)
	return o, err
}

// http3Worker requests one object after the other.
type http3Worker struct {
	took []time.Duration
	err  error
}

func (w *http3Worker) run(ctx context.Context, conn *http3.ClientConn, i *instance, c testCase, first int,
	end time.Time) {
	buf := make([]byte, 64*kib)
	for n := first; ; n++ {
		began := time.Now()
		if began.After(end) {
			return
		}
		o := object{c.Size, int64(n * 7919 % c.Count)}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url(c.Proto, o), nil)
		if err == nil {
			err = w.ask(conn, r, o, c.Status, buf, n == first)
		}
		if err != nil {
			w.err = fmt.Errorf("%s: %w", o.path(), err)
			return
		}
		w.took = append(w.took, time.Since(began))
	}
}

func (w *http3Worker) ask(conn *http3.ClientConn, r *http.Request, o object, status int, buf []byte,
	compare bool) error {
	resp, err := conn.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != status {
		return errors.New(resp.Status)
	}
	if compare {
		return same(resp.Body, o)
	}
	var size int64
	for {
		n, err := resp.Body.Read(buf)
		size += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if size != o.size {
		return fmt.Errorf("%d bytes", size)
	}
	return nil
}
