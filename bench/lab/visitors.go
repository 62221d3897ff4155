//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// load makes visitors come at a constant rate until ctx ends.
func (a *agent) load(ctx context.Context, l load) []sample {
	names := a.cached
	if l.Cold {
		names = a.stub
	}
	if l.At != "" {
		names = &stub{server: net.JoinHostPort(l.At, "53"), cached: !l.Cold}
	}
	var mu sync.Mutex
	var all []sample
	var visitors sync.WaitGroup
	began := time.Now()
	for n := 0; ; n++ {
		due := time.Duration(n) * time.Second / time.Duration(l.Rate)
		if world.Pause(ctx, time.Until(began.Add(due))) != nil {
			break
		}
		path := l.Paths[n%len(l.Paths)]
		visitors.Go(func() {
			late := float64(time.Since(began)-due) / float64(time.Millisecond)
			s := a.visitor(ctx, l, names, path)
			s.Late = late
			mu.Lock()
			defer mu.Unlock()
			all = append(all, s)
		})
	}
	visitors.Wait()
	return all
}

// visitor makes one visit: it requests an object on a new connection.
func (a *agent) visitor(ctx context.Context, l load, names *stub, path string) (s sample) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pageLimit)
	defer cancel()
	s.Start = time.Now().Round(0)
	began := time.Now()
	addrs, err := names.lookup(ctx, l.Host)
	if err == nil && !l.Retry {
		err = a.once(ctx, l, addrs[:1], path, &s)
	} else if err == nil {
		// Browsers retry once if a connection breaks, and people do if nothing comes.
		first, stop := context.WithTimeout(ctx, pageLimit/2)
		err = a.once(first, l, addrs, path, &s)
		stop()
		if err != nil && len(addrs) > 1 {
			if s.Addr == addrs[0] {
				addrs = append(addrs[1:len(addrs):len(addrs)], addrs[0])
			}
			err = a.once(ctx, l, addrs, path, &s)
		}
	}
	s.Took = float64(time.Since(began)) / float64(time.Millisecond)
	if err != nil {
		s.Err = err.Error()
	}
	return s
}

// once requests an object on a new connection to the first address that accepts it.
func (a *agent) once(ctx context.Context, l load, addrs []string, path string, into *sample) error {
	var s session
	var err error
	if len(addrs) == 1 {
		into.Addr = addrs[0]
		s, err = a.dialer.open(ctx, l.Proto, addrs[0], l.Host)
	} else {
		s, into.Addr, err = a.dialer.dialFirst(ctx, l.Proto, addrs, l.Host)
	}
	if err != nil {
		return err
	}
	defer s.close()
	resp, err := get(ctx, s, l.Host, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	into.Cache, _, _ = strings.Cut(resp.Header.Get("Cache-Status"), ",")
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && int(n) != l.Size {
		err = errors.New("the body is cut short")
	}
	return err
}
