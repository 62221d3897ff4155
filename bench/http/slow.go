package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// slowPiece is the number of bytes that a slow client reads every slowPause: 64 KiB a second.
	slowPiece = 16 * kib
	slowPause = time.Second / 4
	// slowBuffer is the receive buffer of a slow client in bytes.
	slowBuffer = 64 * kib
	// slowLeast is the shortest time that slow clients read.
	slowLeast = 10 * time.Second
	// slowRoom is the free space in bytes that the disk needs in addition to the object.
	slowRoom = 4 * gib
)

// ofMemory reports whether a case measures the memory of connections.
func (c testCase) ofMemory() bool { return c.How == idle || c.How == slow }

// roomFor reports whether the disk of dir has room for the object of a case.
func roomFor(dir string, c testCase) bool {
	var st syscall.Statfs_t
	return c.How != slow || syscall.Statfs(dir, &st) == nil && int64(st.Bavail)*st.Bsize > c.Size+slowRoom
}

// measureSlow lets many clients read one object slowly, from different offsets. It measures the
// largest growth of the peer's anonymous memory. CPU and Rate are per MiB sent.
func (b *bench) measureSlow(ctx context.Context, i *instance, c testCase) (m sample, err error) {
	time.Sleep(settle)
	before, asked := i.process.Anonymous(), b.origin.hot.Load()
	spent, err := i.process.CPU()
	if err != nil {
		return m, err
	}
	began := time.Now()
	reading, cancel := context.WithTimeout(ctx, max(b.length, slowLeast))
	defer cancel()
	var wg sync.WaitGroup
	var got atomic.Int64
	failed := make([]error, c.Conns)
	for n := range c.Conns {
		wg.Go(func() {
			if failed[n] = i.readSlowly(reading, c, n, &got); failed[n] != nil {
				cancel()
			}
		})
	}
	most := int64(0)
	for tick := time.NewTicker(slowPause); reading.Err() == nil; {
		<-tick.C
		most = max(most, i.process.Anonymous())
	}
	m.Seconds = time.Since(began).Seconds()
	after, err := i.process.CPU()
	wg.Wait()
	if err := errors.Join(append(failed, err, ctx.Err())...); err != nil {
		return m, err
	}
	sent := float64(got.Load()) / mib
	m.Requests, m.Origin, m.RSS, m.Anonymous = c.Conns, b.origin.hot.Load()-asked, i.process.RSS(), most
	m.CPU, m.Rate = float64((after-spent).Microseconds())/sent, sent/m.Seconds
	m.Conn = float64(most-before) / float64(c.Conns)
	return m, nil
}

// readSlowly is client n. It reads from its offset in the object until ctx ends, and compares
// the bytes.
func (i *instance) readSlowly(ctx context.Context, c testCase, n int, got *atomic.Int64) error {
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		bad := raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, slowBuffer)
		})
		return errors.Join(err, bad)
	}}
	conn, err := dialer.DialContext(ctx, "tcp4", i.addr(c.Proto))
	if err != nil {
		return err
	}
	defer conn.Close()
	o, at := object{c.Size, 0}, c.Size/int64(c.Conns)*int64(n)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nRange: bytes=%d-\r\n\r\n", o.path(),
		net.JoinHostPort(host, i.Port), at)
	buf := bufio.NewReaderSize(conn, slowPiece)
	resp, err := http.ReadResponse(buf, nil)
	if err != nil || resp.StatusCode != c.Status {
		return fmt.Errorf("slow client %d: %v, %w", n, resp, err)
	}
	tick := time.NewTicker(slowPause)
	defer tick.Stop()
	have, want := make([]byte, slowPiece), make([]byte, slowPiece)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.ReadFull(resp.Body, have); err != nil {
			return fmt.Errorf("slow client %d after %d bytes: %w", n, at-c.Size/int64(c.Conns)*int64(n), err)
		}
		if _, err := o.ReadAt(want, at); err != nil || !bytes.Equal(have, want) {
			return fmt.Errorf("slow client %d: not what it should be in 16 KiB from byte %d on: %w", n, at, err)
		}
		at += slowPiece
		got.Add(slowPiece)
	}
}
