//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// The ways from a client to an object.
const (
	wayDirect = "direct"    // directly to the origin
	wayCloses = "closes"    // to an origin that closes each connection; for pages over HTTP/1.1 only
	wayCold   = "miss-cold" // through an edge that has neither the object nor a connection to the origin
	wayWarm   = "miss"      // through an edge that has a connection to the origin
	wayHit    = "hit"
)

func ways() []string { return []string{wayDirect, wayCold, wayWarm, wayHit} }

// waysTo returns the ways that are measured for a body.
func waysTo(body, proto string) []string {
	if body == "page" && proto == "h1" { // over HTTP/2, a page comes on one connection
		return append(ways(), wayCloses)
	}
	return ways()
}

func protocols() []string { return []string{"h1", "h2", "h3"} }

// body is a kind of object.
type body struct{ name, title string }

func bodyList() []body {
	return []body{{"1k", "1 KiB"}, {"1m", "1 MiB"}, {"20m", "20 MiB"},
		{"page", fmt.Sprintf("a page of %d objects", pageObjects)}}
}

// paths returns the URLs of one visit. n makes them different from those of other visits.
func paths(body string, n int) []string {
	all := []string{fmt.Sprintf("/%s/%d", body, n)}
	if body == "page" {
		for k := range pageObjects - 1 {
			all = append(all, fmt.Sprintf("/asset/%d-%d", n, k))
		}
	}
	return all
}

// next returns the number of the next URL.
func (l *lab) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fresh++
	return l.fresh
}

// feel measures what users notice, for all cities, sizes and protocols. The cities are measured at
// the same time, except for sizes that fill a line.
func (l *lab) feel(ctx context.Context, r *report) error {
	rounds := 7
	if l.short {
		rounds = 1
	}
	for _, b := range bodyList() {
		n := rounds
		if b.name == "20m" {
			n = (rounds + 1) / 2
		}
		l.say("what users feel: %s, %d rounds", b.title, n)
		var mu sync.Mutex
		var all sync.WaitGroup
		results := make(chan error, len(cities()))
		for _, c := range cities() {
			if l.short && (c.key != "hel" || b.name == "page" || b.name == "20m") {
				results <- nil
				continue
			}
			measureCity := func() {
				cases, err := l.feelCity(ctx, c, b, n)
				mu.Lock()
				r.Cases = append(r.Cases, cases...)
				mu.Unlock()
				results <- err
			}
			if b.name == "20m" {
				measureCity()
			} else {
				all.Go(measureCity)
			}
		}
		all.Wait()
		for range cities() {
			if err := <-results; err != nil {
				return err
			}
		}
	}
	return l.coldNames(ctx, r)
}

// feelCity measures one size from one city.
func (l *lab) feelCity(ctx context.Context, c city, b body, rounds int) ([]feltCase, error) {
	samples := map[[2]string][]timing{}
	stay := l.next() // number of the URLs for hits
	for round := range rounds {
		for _, proto := range protocols() {
			if round == 0 && proto == "h1" { // fills the cache for the hits
				if _, err := l.visitOf(ctx, c, b, proto, wayWarm, stay); err != nil {
					return nil, err
				}
			}
			for _, way := range waysTo(b.name, proto) {
				if way == wayDirect && proto == "h3" {
					continue // this nginx has no HTTP/3
				}
				n := stay
				if way != wayHit {
					n = l.next()
				}
				if way == wayWarm { // uses the connection of the miss just before
					if _, err := l.visitOf(ctx, c, body{"1k", ""}, "h1", wayWarm, l.next()); err != nil {
						return nil, err
					}
				}
				t, err := l.visitOf(ctx, c, b, proto, way, n)
				if err != nil {
					return nil, err
				}
				samples[[2]string{proto, way}] = append(samples[[2]string{proto, way}], t)
			}
		}
	}
	var out []feltCase
	for _, proto := range protocols() {
		for _, way := range waysTo(b.name, proto) {
			if s := samples[[2]string{proto, way}]; len(s) > 0 {
				out = append(out, feltCase{City: string(c.place), Body: b.name, Proto: proto, Way: way, Samples: s})
			}
		}
	}
	return out, nil
}

// visitOf makes one visit, and fails unless it went the expected way.
func (l *lab) visitOf(ctx context.Context, c city, b body, proto, way string, n int) (timing, error) {
	host := map[string]string{wayDirect: hostOrigin, wayCloses: hostCloses, wayCold: hostCold, wayWarm: hostWWW,
		wayHit: hostWWW}[way]
	want := map[string]string{wayDirect: "", wayCloses: "", wayCold: "fwd=", wayWarm: "fwd=", wayHit: "; hit"}[way]
	t, err := l.clients[c.key].visit(ctx, visit{Proto: proto, Host: host, Paths: paths(b.name, n),
		Size: bodies()[b.name]})
	if err == nil && t.Err != "" {
		err = fmt.Errorf("%s", t.Err)
	}
	if err == nil && (!strings.Contains(t.Cache, want) || want != "" && t.Addr != address(c.edge)) {
		err = fmt.Errorf("got it from %s with %q", t.Addr, t.Cache)
	}
	if err != nil {
		return t, fmt.Errorf("%s from %s over %s, %s: %w", b.title, c.place, proto, way, err)
	}
	return t, nil
}

// coldNames measures hits, and visits to the origin, with the name in the resolver's cache and
// without.
func (l *lab) coldNames(ctx context.Context, r *report) error {
	rounds := 4
	if l.short {
		rounds = 1
	}
	c, stay := cities()[0], l.next()
	if _, err := l.visitOf(ctx, c, body{"1k", "1 KiB"}, "h2", wayWarm, stay); err != nil {
		return err
	}
	l.say("what users feel: names that the resolver does not have")
	for range rounds {
		if err := world.Pause(ctx, l.ttl+time.Second); err != nil { // until the edge's name has left the cache
			return err
		}
		for _, into := range []*[]timing{&r.ColdName, &r.KnownName} {
			t, err := l.visitOf(ctx, c, body{"1k", "1 KiB"}, "h2", wayHit, stay)
			if err != nil {
				return err
			}
			*into = append(*into, t)
		}
	}
	return nil
}
