package geodns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kaiku-cdn/kaiku/fleet/freeport"
)

// serve runs a server on loopback until the test ends. It checks that Serve returns no error.
func serve(t *testing.T, s *Server, cfg Config) {
	t.Helper()
	if s.Addr == "" {
		s.Addr = "127.0.0.1:0"
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// exchange sends a query over the network and returns the response.
func exchange(t *testing.T, network, addr, q string) *dns.Msg {
	t.Helper()
	m := question(q)
	m.SetEdns0(1232, false)
	client := dns.Client{Net: network, Timeout: 10 * time.Second}
	resp, _, err := client.Exchange(m, addr)
	if err != nil {
		t.Fatalf("%s over %s: %v", q, network, err)
	}
	return resp
}

func TestServe(t *testing.T) {
	s := new(Server)
	serve(t, s, testConfig(t))
	for _, network := range []string{"udp", "tcp"} {
		resp := exchange(t, network, s.LocalAddr().String(), "www.example.com. A")
		wantRRs(t, network, resp.Answer, "www.example.com. 30 IN A 203.0.113.10")
	}
}

// TestServeWildcard queries a server that is bound to all addresses, at an address that the kernel
// wouldn't choose as the source of a response. The client's socket is connected, so it only
// receives a response from that address.
func TestServeWildcard(t *testing.T) {
	for _, addr := range []string{":0", "0.0.0.0:0"} {
		s := &Server{Addr: addr}
		serve(t, s, testConfig(t))
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), s.LocalAddr().Port()).String()
		wantRRs(t, addr, exchange(t, "udp", to, "mail.example.com. A").Answer, mail...)
	}
	s := &Server{Addr: ":0"}
	serve(t, s, testConfig(t))
	to := netip.AddrPortFrom(netip.MustParseAddr("::1"), s.LocalAddr().Port()).String()
	if conn, err := net.Dial("udp", to); err != nil {
		t.Skip("no IPv6 here")
	} else {
		conn.Close()
	}
	wantRRs(t, "IPv6", exchange(t, "udp", to, "mail.example.com. A").Answer, mail...)
}

func TestServeTCPPipelined(t *testing.T) {
	s := new(Server)
	serve(t, s, testConfig(t))
	conn, err := net.Dial("tcp", s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var all []byte
	for i := range 100 {
		m := question("www.example.com. A")
		m.Id = uint16(i)
		req, _ := m.Pack()
		all = binary.BigEndian.AppendUint16(all, uint16(len(req)))
		all = append(all, req...)
	}
	// Send everything except the last octet. The queries before it must be answered anyway.
	if _, err := conn.Write(all[:len(all)-1]); err != nil {
		t.Fatal(err)
	}
	read := func(id int) {
		t.Helper()
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			t.Fatal(err)
		}
		resp := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, resp); err != nil {
			t.Fatal(err)
		}
		if got := int(binary.BigEndian.Uint16(resp)); got != id {
			t.Fatalf("response %d, want %d", got, id)
		}
	}
	for i := range 99 {
		read(i)
	}
	if _, err := conn.Write(all[len(all)-1:]); err != nil {
		t.Fatal(err)
	}
	read(99)

	// A message that is not a query ends the connection.
	if _, err := conn.Write([]byte{0, 3, 'G', 'E', 'T'}); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d, %v", n, err)
	}
}

// TestServeEnds stops a server that has an idle connection.
func TestServeEnds(t *testing.T) {
	s := &Server{Addr: "127.0.0.1:0"}
	if err := s.Reload(testConfig(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	conn, err := dns.Dial("tcp", s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.WriteMsg(question("mail.example.com. A")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ReadMsg(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := conn.ReadMsg(); err == nil {
		t.Error("the connection is open")
	}
}

func TestServeUnready(t *testing.T) {
	if err := new(Server).Serve(t.Context()); err == nil {
		t.Error("Serve without Listen")
	}
	s := &Server{Addr: "127.0.0.1:0"}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context()); err == nil {
		t.Error("Serve without a configuration")
	}
}

func TestListenInUse(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	for _, addr := range []string{udp.LocalAddr().String(), tcp.Addr().String()} {
		err := (&Server{Addr: addr}).Listen(t.Context())
		if err == nil || !strings.Contains(err.Error(), addr) ||
			!strings.Contains(err.Error(), "address already in use") ||
			!strings.Contains(err.Error(), "stop that program, or listen on another address") {
			t.Errorf("error is %v", err)
		}
	}
	for addr, want := range map[string]string{
		"127.0.0.1": `"127.0.0.1": want host:port`, "127.0.0.1:x": "unknown port",
		"192.0.2.1:0": "this machine does not have the address 192.0.2.1",
	} {
		if err := (&Server{Addr: addr}).Listen(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v", addr, err)
		}
	}
}

func TestMetricsTwice(t *testing.T) {
	reg := prometheus.NewRegistry()
	if err := (&Server{Registerer: reg}).Reload(testConfig(t)); err != nil {
		t.Fatal(err)
	}
	if err := (&Server{Registerer: reg}).Reload(testConfig(t)); err == nil {
		t.Error("two servers have the same metrics")
	}
	for qtype := range uint16(300) {
		if l := typeLabel(qtype); l == "" {
			t.Errorf("type %d has no label", qtype)
		}
	}
}

// TestReloadWhileServing replaces the configuration while queries are answered. It is for the race
// detector.
func TestReloadWhileServing(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	s := new(Server)
	cfg := testConfig(t)
	cfg.Health.Interval = time.Millisecond
	serve(t, s, cfg)
	var done sync.WaitGroup
	done.Go(func() {
		for i := range 30 {
			next := testConfig(t)
			next.Health.Interval = time.Millisecond
			for j := range next.Nodes {
				if (i+j)%3 > 0 {
					next.Nodes[j].Probe = up.URL
				}
			}
			if err := s.Reload(next); err != nil {
				t.Error(err)
			}
		}
	})
	for range 50 {
		if resp := exchange(t, "udp", s.LocalAddr().String(), "www.example.com. A"); len(resp.Answer) != 1 {
			t.Errorf("answer is %v", resp.Answer)
		}
	}
	done.Wait()
}

// A query that makes the server panic gets no response. The server logs an error with the stack,
// and answers the next query.
func TestPanics(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	s := &Server{Log: slog.New(slog.NewTextHandler(&log, nil)), Registerer: reg}
	if err := s.Reload(testConfig(t)); err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]*worker{"with a memory": newWorker(s), "without": {server: s}} {
		before := s.current.Load()
		s.current.Store(nil) // makes the next answer panic
		req, err := question("www.example.com. A").Pack()
		if err != nil {
			t.Fatal(err)
		}
		if resp := w.answer(req, inHelsinki, false, nil); resp != nil {
			t.Errorf("%s: the response is %x", name, resp)
		}
		s.current.Store(before)
		if resp := w.answer(req, inHelsinki, false, nil); resp == nil {
			t.Errorf("%s: the next query has no response", name)
		}
	}
	if text := log.String(); strings.Count(text, "level=ERROR") != 2 || !strings.Contains(text, "respond") {
		t.Errorf("the log has\n%s", text)
	}
	if n := testutil.ToFloat64(s.metrics.panics); n != 2 {
		t.Errorf("%v panics are counted", n)
	}
}

// A server with several addresses answers at each of them, over UDP and TCP. A response over UDP
// comes from the address of its query.
func TestListenOnSeveralAddresses(t *testing.T) {
	s := &Server{Addr: "127.0.0.1:0", More: []string{"127.0.0.2:0", "[::1]:0"}}
	serve(t, s, testConfig(t))
	if len(s.tcp) != 3 {
		t.Fatalf("%d listeners", len(s.tcp))
	}
	for _, l := range s.tcp {
		for _, network := range []string{"udp", "tcp"} {
			resp, _, err := (&dns.Client{Net: network,
				Timeout: 10 * time.Second}).Exchange(question("ns1.example.com. A"), l.Addr().String())
			if err != nil || len(resp.Answer) != 1 {
				t.Errorf("%s of %s: %v, %v", network, l.Addr(), resp, err)
			}
		}
	}
}

// If one address can't be bound, none is.
func TestListenOnAllOrNone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	first := freeport.Addr(t)
	if err := (&Server{Addr: first, More: []string{taken.Addr().String()}}).Listen(t.Context()); err == nil ||
		!strings.Contains(err.Error(), taken.Addr().String()) {
		t.Fatalf("error is %v", err)
	}
	s := &Server{Addr: first}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatalf("the first address is still bound: %v", err)
	}
	if err := errors.Join(s.udp.Close(), s.tcp.Close()); err != nil {
		t.Fatal(err)
	}
}
