package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// settle is how long a peer gets to become idle before its memory is measured.
const settle = 2 * time.Second

// measureIdle opens connections and requests one object on each. It keeps them open, and measures
// how much the peer's memory has grown.
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
	for n := range c.Conns {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", i.addr(c.Proto))
		if err != nil {
			return m, err
		}
		conns = append(conns, conn)
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		ask := askHTTP1
		if c.Proto == "http2" {
			ask = askHTTP2
		}
		if err := ask(conn, i, c, object{c.Size, int64(n % c.Count)}); err != nil {
			return m, fmt.Errorf("connection %d: %w", n, err)
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

// askHTTP1 requests an object over HTTP/1.1.
func askHTTP1(conn net.Conn, i *instance, c testCase, o object) error {
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", o.path(), net.JoinHostPort(host, i.Port))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	size, err := io.Copy(io.Discard, resp.Body)
	if err != nil || resp.StatusCode != c.Status || size != c.Body || resp.Close {
		return fmt.Errorf("%s, %d bytes, closed %v: %w", resp.Status, size, resp.Close, err)
	}
	return nil
}

// askHTTP2 requests an object over HTTP/2 with TLS. From then on, it answers pings.
func askHTTP2(conn net.Conn, i *instance, c testCase, o object) error {
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: host, NextProtos: []string{"h2"}})
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":path", o.path()},
		{":authority", net.JoinHostPort(host, i.TLSPort)}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&out, secure)
	fr.SetReuseFrames()
	_ = fr.WriteSettings()
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true,
		EndStream: true})
	if _, err := secure.Write(out.Bytes()); err != nil {
		return err
	}
	fr = http2.NewFramer(secure, secure)
	size := 0
	next := func() (ended bool, err error) {
		frame, err := fr.ReadFrame()
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = fr.WritePing(true, f.Data)
			}
		case *http2.DataFrame:
			size += len(f.Data())
			ended = f.StreamEnded()
		}
		return ended, err
	}
	for {
		switch ended, err := next(); {
		case err != nil:
			return err
		case !ended:
			continue
		case int64(size) != c.Body:
			return fmt.Errorf("%d bytes", size)
		}
		_ = conn.SetDeadline(time.Time{})
		go func() { // ends when the connection is closed
			for err := error(nil); err == nil; _, err = next() {
			}
		}()
		return nil
	}
}
