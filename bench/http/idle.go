package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// settle is how long a peer has until its memory is looked at.
const settle = 2 * time.Second

// measureIdle opens connections, asks for one object on each, keeps them, and looks at what the
// peer's memory has grown by.
func (b *bench) measureIdle(ctx context.Context, i *instance, c testCase) (m sample, err error) {
	time.Sleep(settle)
	before := i.process.RSS()
	conns := make([]net.Conn, 0, c.Conns)
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	began := time.Now()
	spent, err := i.process.CPU()
	if err != nil {
		return m, err
	}
	buf := bufio.NewReader(nil)
	for n := range c.Conns {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", i.addr(c.Proto))
		if err != nil {
			return m, err
		}
		conns = append(conns, conn)
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", object{c.Size, int64(n % c.Count)}.path(),
			net.JoinHostPort(host, i.Port))
		buf.Reset(conn)
		resp, err := http.ReadResponse(buf, nil)
		if err != nil {
			return m, err
		}
		size, err := io.Copy(io.Discard, resp.Body)
		if err != nil || resp.StatusCode != c.Status || size != c.Body || resp.Close {
			return m, fmt.Errorf("connection %d: %s, %d bytes, closed %v: %w", n, resp.Status, size, resp.Close, err)
		}
	}
	m.Requests, m.Seconds = c.Conns, time.Since(began).Seconds()
	after, err := i.process.CPU()
	if err != nil {
		return m, err
	}
	m.CPU, m.Rate = float64((after-spent).Microseconds())/float64(c.Conns), float64(c.Conns)/m.Seconds
	time.Sleep(settle)
	m.RSS = i.process.RSS()
	m.Conn = float64(m.RSS-before) / float64(c.Conns)
	return m, nil
}
