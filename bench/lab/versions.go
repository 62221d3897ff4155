//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// Objects with versions have their version, a number, as their content.

// version requests such an object.
func version(ctx context.Context, s session, host, path string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, pageLimit)
	defer cancel()
	resp, err := get(ctx, s, host, path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// poll requests an object until ctx ends.
func (a *agent) poll(ctx context.Context, p poll) polled {
	var out polled
	all := map[int]seen{}
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	var s session
	for ctx.Err() == nil {
		var err error
		if s == nil {
			s, err = a.dialer.open(context.WithoutCancel(ctx), "h2", p.Addr, p.Host)
		}
		if err == nil {
			var v int
			if v, err = version(context.WithoutCancel(ctx), s, p.Host, p.Path); err == nil {
				see(all, v)
			} else {
				s.close()
				s = nil
			}
		}
		if err != nil {
			out.Errors++
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	if s != nil {
		s.close()
	}
	out.Seen = slices.SortedFunc(maps.Values(all), func(a, b seen) int { return a.Version - b.Version })
	return out
}

// see records that a version was seen now.
func see(all map[int]seen, v int) {
	now := time.Now().Round(0)
	x, old := all[v]
	if !old {
		x = seen{Version: v, First: now}
	}
	x.Last = now
	x.N++
	all[v] = x
}

// sweepers is how many requests of a sweep are under way.
const sweepers = 50

// sweep requests all objects once, as soon as the edge answers.
func (a *agent) sweep(ctx context.Context, w sweep) swept {
	out := swept{Versions: map[int]seen{}}
	s, err := a.await(ctx, w)
	if err != nil {
		out.Errors, out.Err = w.N, err.Error()
		return out
	}
	defer s.close()
	out.Began = time.Now().Round(0)
	var mu sync.Mutex
	var workers sync.WaitGroup
	for k := range sweepers {
		workers.Go(func() {
			for n := k; n < w.N; n += sweepers {
				v, err := version(ctx, s, w.Host, fmt.Sprintf("%s%d", w.Prefix, n))
				mu.Lock()
				if err != nil {
					out.Errors++
					out.Err = err.Error()
				} else {
					see(out.Versions, v)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return out
}

// await connects to an edge that may still be cut off.
func (a *agent) await(ctx context.Context, w sweep) (session, error) {
	for began := time.Now(); ; {
		try, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
		s, err := a.dialer.open(try, "h2", w.Addr, w.Host)
		cancel()
		if err == nil || ctx.Err() != nil || time.Since(began) > w.Wait {
			return s, err
		}
		if err := world.Pause(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
