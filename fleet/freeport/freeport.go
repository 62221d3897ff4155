// Package freeport gives tests addresses to listen on.
//
// A test that starts a node has to name its port before the node listens on it. The kernel gives a
// port of its own choice to whoever asks next, as the source of any connection too, so a port that
// it gave and got back may be taken at once. The ports here are below those that the kernel chooses
// from, and each is given once.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Linux chooses from 32768 to 60999 (net.ipv4.ip_local_port_range).
const first, last = 10000, 32767

var (
	mu   sync.Mutex
	next = first + rand.IntN(last-first)
	held []net.Listener
)

// Addr returns an address of loopback, as host:port, whose port nothing has on any address over TCP
// or UDP. No test of this or another process gets that port while this process lives.
func Addr(t testing.TB) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	for range last - first {
		if next++; next > last {
			next = first
		}
		// A name of the abstract namespace tells other processes. The kernel frees it when this one
		// ends.
		hold, err := net.Listen("unix", fmt.Sprintf("@kaiku-test-port-%d", next))
		if err != nil {
			continue
		}
		if !free(next) {
			hold.Close()
			continue
		}
		held = append(held, hold)
		return fmt.Sprintf("127.0.0.1:%d", next)
	}
	t.Fatal("no port is free")
	return ""
}

func free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return false
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		return false
	}
	p.Close()
	return true
}
