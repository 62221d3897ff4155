//go:build real

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// traffic is a set of clients that request files at a constant rate, however long the responses
// take. They find edges as clients on the internet do, by a resolver. It knows the name servers,
// sends the client's network, keeps answers for their TTL, and queries the next name server if one
// is silent. A request is not repeated: anything but the whole file counts as lost. (Go's HTTP
// client itself repeats a GET on a new connection if the kept one was closed before the request, as
// all browsers do.)
type traffic struct {
	name  string
	files map[string][]byte
	stop  func()

	mu      sync.Mutex
	asked   int
	lost    []string
	told    int            // how many of these have failed the test already
	by      map[string]int // requests served, by edge
	slowest time.Duration
	kept    int // requests on a reused connection
	retried int // queries that the next name server got
}

// trafficRate is the number of requests a second of each client.
const trafficRate = 10

// startTraffic starts two clients in each of three networks.
func startTraffic(t *testing.T, servers []string, dir string) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	l := &traffic{name: "www.example.com", files: map[string][]byte{}, by: map[string]int{},
		stop: func() { cancel(); all.Wait() }}
	for _, name := range []string{"/a.css", "/b.js"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		l.files[name] = b
	}
	for _, network := range []string{"193.166.3.0", "128.112.1.0", "137.132.1.0"} { // Finland, the US, Singapore
		for _, keep := range []bool{true, false} {
			c := &trafficClient{traffic: l, network: netip.MustParseAddr(network), servers: servers,
				http: &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep, MaxIdleConnsPerHost: 4},
					Timeout: 20 * time.Second}}
			all.Go(func() { c.run(ctx) })
		}
	}
	t.Cleanup(l.stop)
	return l
}

// lostNone fails the test for requests lost since its last call.
func (l *traffic) lostNone(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if lost := l.lost[l.told:]; len(lost) > 0 {
		t.Errorf("%d requests were lost, such as %q", len(lost), lost[:min(len(lost), 5)])
	}
	l.told = len(l.lost)
}

// served returns how many requests each edge has served.
func (l *traffic) served() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int{}
	for k, v := range l.by {
		out[k] = v
	}
	return out
}

// String returns the figures.
func (l *traffic) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d requests, %d lost, %v by edge, %d on kept connections, the slowest took %v; %d queries went to the next name server",
		l.asked, len(l.lost), l.by, l.kept, l.slowest.Round(time.Millisecond), l.retried)
}

// trafficClient is a client and its resolver.
type trafficClient struct {
	traffic *traffic
	network netip.Addr // its /24
	servers []string
	http    *http.Client

	mu    sync.Mutex // held during a query: the others wait for its answer
	addr  string
	until time.Time
}

func (c *trafficClient) run(ctx context.Context) {
	tick := time.NewTicker(time.Second / trafficRate)
	defer tick.Stop()
	names := []string{"/a.css", "/b.js"}
	var all sync.WaitGroup
	defer all.Wait()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			all.Go(func() { c.ask(names[i%len(names)]) })
		}
	}
}

// ask sends one request.
func (c *trafficClient) ask(file string) {
	began := time.Now()
	addr, reused, err := c.get(file)
	took := time.Since(began)
	l := c.traffic
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	l.slowest = max(l.slowest, took)
	if err != nil {
		l.lost = append(l.lost, fmt.Sprintf("%s of %s after %v: %v", file, addr, took, err))
		return
	}
	l.by[addr]++
	if reused {
		l.kept++
	}
}

func (c *trafficClient) get(file string) (addr string, reused bool, err error) {
	if addr, err = c.resolve(); err != nil {
		return "", reused, err
	}
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "GET",
		"http://"+addr+file, nil)
	if err != nil {
		return addr, reused, err
	}
	r.Host = c.traffic.name
	resp, err := c.http.Do(r)
	if err != nil {
		return addr, reused, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return addr, reused, err
	case resp.StatusCode != http.StatusOK:
		return addr, reused, fmt.Errorf("%s: %.200s", resp.Status, body)
	case !bytes.Equal(body, c.traffic.files[file]):
		return addr, reused, fmt.Errorf("%d bytes that are not the file", len(body))
	}
	return addr, reused, nil
}

// resolve returns the address of an edge. It keeps the address for its TTL.
func (c *trafficClient) resolve() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.until) {
		return c.addr, nil
	}
	servers := slices.Clone(c.servers)
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	var errs []error
	for try := range 3 * len(servers) {
		addr, ttl, err := c.query(servers[try%len(servers)])
		if err == nil {
			c.addr, c.until = addr, time.Now().Add(ttl)
			return addr, nil
		}
		errs = append(errs, err)
		if !errors.As(err, new(*net.OpError)) { // the server did answer
			break
		}
		c.traffic.mu.Lock()
		c.traffic.retried++
		c.traffic.mu.Unlock()
	}
	return "", fmt.Errorf("no address: %w", errors.Join(errs...))
}

// query queries one name server over UDP.
func (c *trafficClient) query(server string) (addr string, ttl time.Duration, err error) {
	conn, err := net.Dial("udp", server)
	if err != nil {
		return "", 0, err
	}
	defer conn.Close()
	name, err := dnsmessage.NewName(c.traffic.name + ".")
	if err != nil {
		return "", 0, err
	}
	net4 := c.network.As4()
	subnet := append([]byte{0, 1, 24, 0}, net4[:3]...) // RFC 7871: IPv4, a /24
	var opt dnsmessage.ResourceHeader
	if err := opt.SetEDNS0(1232, dnsmessage.RCodeSuccess, false); err != nil {
		return "", 0, err
	}
	id := uint16(rand.Uint32())
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: id},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Additionals: []dnsmessage.Resource{{Header: opt,
			Body: &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 8, Data: subnet}}}}}}
	packed, err := q.Pack()
	if err != nil {
		return "", 0, err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", 0, err
	}
	if _, err := conn.Write(packed); err != nil {
		return "", 0, err
	}
	answer := make([]byte, 1500)
	n, err := conn.Read(answer)
	if err != nil {
		return "", 0, err
	}
	var m dnsmessage.Message
	if err := m.Unpack(answer[:n]); err != nil {
		return "", 0, err
	}
	for _, a := range m.Answers {
		if body, ok := a.Body.(*dnsmessage.AResource); ok && m.ID == id && m.RCode == dnsmessage.RCodeSuccess {
			return netip.AddrFrom4(body.A).String(), time.Duration(a.Header.TTL) * time.Second, nil
		}
	}
	return "", 0, fmt.Errorf("%s answers %v with %d records", server, m.RCode, len(m.Answers))
}
