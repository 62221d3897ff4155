//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// stub asks a caching resolver, like the library of an operating system.
type stub struct {
	server string // host:port
	cached bool   // keep answers for their TTL

	mu    sync.Mutex
	known map[string]known
}

type known struct {
	addrs []string
	until time.Time
}

// tryTime is how long to wait for an answer before the question is sent again.
const tryTime = time.Second

// lookup returns the addresses of a name in the order of the answer.
func (s *stub) lookup(ctx context.Context, name string) ([]string, error) {
	s.mu.Lock()
	k := s.known[name]
	s.mu.Unlock()
	if s.cached && time.Now().Before(k.until) {
		return k.addrs, nil
	}
	for {
		m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
		try, cancel := context.WithTimeout(ctx, tryTime)
		answer, _, err := (&dns.Client{Timeout: tryTime}).ExchangeContext(try, m, s.server)
		cancel()
		if err == nil && answer.Rcode == dns.RcodeSuccess {
			return s.keep(name, answer)
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("look up %s: %w", name, ctx.Err())
		}
		if err == nil {
			return nil, fmt.Errorf("look up %s: %s", name, dns.RcodeToString[answer.Rcode])
		}
	}
}

func (s *stub) keep(name string, answer *dns.Msg) ([]string, error) {
	k := known{until: time.Now().Add(24 * time.Hour)}
	for _, rr := range answer.Answer {
		k.until = earlier(k.until, time.Now().Add(time.Duration(rr.Header().Ttl)*time.Second))
		if a, ok := rr.(*dns.A); ok {
			k.addrs = append(k.addrs, a.A.String())
		}
	}
	if len(k.addrs) == 0 {
		return nil, errors.New("look up " + name + ": no address")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string]known{}
	}
	s.known[name] = k
	return k.addrs, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
