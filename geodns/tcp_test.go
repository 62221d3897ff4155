package geodns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

var usual = defaultTCPLimits()

// TestKeepalive checks RFC 7828: the option is in responses over TCP only, and only if the query
// has it.
func TestKeepalive(t *testing.T) {
	s := newServer(t, testConfig(t))
	for _, test := range []struct {
		name, option string
		tcp          bool
		rcode        int
		want         uint16 // in units of 100 ms; 0 means no option
	}{
		{name: "TCP", option: "keepalive:", tcp: true, want: 300},
		{name: "TCP, not asked", option: "nsid:", tcp: true},
		{name: "TCP, with a time", option: "keepalive:0064", tcp: true, rcode: dns.RcodeFormatError},
		{name: "TCP, with an octet", option: "keepalive:00", tcp: true, rcode: dns.RcodeFormatError},
		{name: "UDP", option: "keepalive:"},
		{name: "UDP, with a time", option: "keepalive:0064"},
	} {
		resp := mustAnswer(t, s, withOptions(t, "mail.example.com. A", test.option), nowhere, test.tcp)
		if resp.Rcode != test.rcode || (len(resp.Answer) == 1) != (test.rcode == 0) {
			t.Errorf("%s: response is %v", test.name, resp)
		}
		if got := keepaliveOf(resp); got != test.want || (got == 0) != !slices.Contains(optionCodes(resp),
			optionKeepalive) {
			t.Errorf("%s: keepalive is %d, want %d", test.name, got, test.want)
		}
	}
}

func keepaliveOf(m *dns.Msg) uint16 {
	for _, o := range m.IsEdns0().Option {
		if k, ok := o.(*dns.EDNS0_TCP_KEEPALIVE); ok {
			return k.Timeout
		}
	}
	return 0
}

// tcpServer serves one end of a connection in the test's bubble and returns the other end.
func tcpServer(t *testing.T, s *Server, busy bool) *dns.Conn {
	client, server := net.Pipe()
	done := make(chan struct{})
	limits := usual
	if busy {
		limits.total = 1
	}
	conns := newTCPConns(limits)
	conn, _ := conns.enter(server, 1)
	go func() {
		defer close(done)
		s.serveConn(context.Background(), conn, nowhere, conns)
	}()
	t.Cleanup(func() { client.Close(); <-done })
	return &dns.Conn{Conn: client}
}

// openFor returns how long the server keeps the connection open.
func openFor(t *testing.T, conn net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read %d octets, %v", n, err)
	}
	return time.Since(start)
}

// TestTCPTimeouts checks how long the server keeps idle connections open.
func TestTCPTimeouts(t *testing.T) {
	for _, test := range []struct {
		name      string
		option    string // option of a query before; "" means no query
		busy      bool
		keepalive uint16
		want      time.Duration
	}{
		{name: "no query", want: usual.idle},
		{name: "a query", option: "nsid:", want: usual.idle},
		{name: "keepalive", option: "keepalive:", keepalive: 300, want: usual.keepalive},
		{name: "no query, busy", busy: true, want: usual.busy},
		{name: "keepalive, busy", option: "keepalive:", busy: true, keepalive: 10, want: usual.busy},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := tcpServer(t, newServer(t, testConfig(t)), test.busy)
				if test.option != "" {
					if err := conn.WriteMsg(withOptions(t, "mail.example.com. A", test.option)); err != nil {
						t.Fatal(err)
					}
					resp, err := conn.ReadMsg()
					if err != nil || keepaliveOf(resp) != test.keepalive {
						t.Fatalf("response is %v, %v", resp, err)
					}
				}
				if got := openFor(t, conn.Conn); got != test.want {
					t.Errorf("open for %v, want %v", got, test.want)
				}
			})
		})
	}
}

// TestTCPSlow sends a query octet by octet. The timeout of one query applies to all of it.
func TestTCPSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := tcpServer(t, newServer(t, testConfig(t)), false)
		begin := time.Now()
		for _, err := conn.Conn.Write([]byte{1}); err == nil; _, err = conn.Conn.Write([]byte{1}) {
			time.Sleep(900 * time.Millisecond)
		}
		if got := time.Since(begin); got < usual.idle || got > usual.idle+time.Second {
			t.Errorf("open for %v", got)
		}
	})
}

// TestTCPBusyAge uses a connection all the time. It stays open forever, unless there are many
// connections.
func TestTCPBusyAge(t *testing.T) {
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			conn := tcpServer(t, newServer(t, testConfig(t)), busy)
			begin := time.Now()
			for time.Since(begin) < 10*usual.age {
				if err := conn.WriteMsg(question("mail.example.com. A")); err != nil {
					break
				}
				if _, err := conn.ReadMsg(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(usual.busy / 2)
			}
			if got := time.Since(begin); busy != (got <= usual.age+usual.busy) {
				t.Errorf("busy %v: open for %v", busy, got)
			}
		})
	}
}

// patient are limits that few connections reach, with timeouts that no test reaches.
var patient = tcpLimits{total: 16, network: 6, heavy: 3, idle: time.Hour, keepalive: time.Hour, busy: time.Hour,
	age: time.Hour}

// tcpClient is a connection from a loopback address. The address decides to which client network it
// belongs.
type tcpClient struct {
	*dns.Conn
	t *testing.T
}

func dialFrom(t *testing.T, s *Server, from string) tcpClient {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(t.Context(), "tcp", s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return tcpClient{&dns.Conn{Conn: conn}, t}
}

// served sends a query and reports whether it is answered. If it isn't, the server has closed the
// connection.
func (c tcpClient) served() bool {
	c.t.Helper()
	if c.WriteMsg(question("mail.example.com. A")) != nil {
		return false
	}
	resp, err := c.ReadMsg()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal(err)
	}
	return err == nil && len(resp.Answer) == 1
}

// closed waits until the server has closed the connection, and fails the test if it receives
// something instead.
func (c tcpClient) closed() {
	c.t.Helper()
	if n, err := c.Conn.Conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("%v is not closed: %d octets, %v", c.LocalAddr(), n, err)
	}
}

// If a network is at its limit, a new connection from it closes its own longest idle connection.
// Other networks lose nothing.
func TestTCPNetworkAtItsLimitLosesItsLongestIdle(t *testing.T) {
	s := &Server{tcpLimits: patient}
	serve(t, s, testConfig(t))
	other := dialFrom(t, s, "127.0.1.1")
	if !other.served() {
		t.Fatal("the first connection is not served")
	}
	var conns []tcpClient
	for i := range patient.network {
		conns = append(conns, dialFrom(t, s, []string{"127.0.0.1", "127.0.0.77"}[i%2]))
		if !conns[i].served() {
			t.Fatalf("connection %d is closed", i)
		}
	}
	if !conns[0].served() { // now conns[1] is the longest idle
		t.Fatal("a second query is not answered")
	}
	if !dialFrom(t, s, "127.0.0.2").served() {
		t.Error("one more is not served")
	}
	conns[1].closed()
	for i, conn := range append(conns[2:], conns[0], other) {
		if !conn.served() {
			t.Errorf("connection %d is closed too", i)
		}
	}
}

// If all connections are taken by clients that send no queries, a new client is still served at
// once.
func TestTCPFloodOfIdleConnectionsMakesRoom(t *testing.T) {
	s := &Server{tcpLimits: patient}
	serve(t, s, testConfig(t))
	var idle []tcpClient
	flood := func(from string) {
		idle = append(idle, dialFrom(t, s, from))
	}
	for i := range 3 * patient.total {
		flood(fmt.Sprintf("127.0.%d.1", i))
	}
	honest := dialFrom(t, s, "127.1.0.1")
	if !honest.served() {
		t.Fatal("an honest client is not served")
	}
	for i := range patient.total - 1 { // now honest is the longest idle
		flood(fmt.Sprintf("127.2.%d.1", i))
	}
	for _, conn := range idle[:3*patient.total] {
		conn.closed()
	}
	if !honest.served() {
		t.Error("the honest client's connection was closed before those that are idle for longer")
	}
}

// If a few networks hold many connections and use them, they lose theirs before other networks lose
// connections that have been idle for longer.
func TestTCPFloodOfFewNetworksIsShedFirst(t *testing.T) {
	s := &Server{tcpLimits: patient}
	serve(t, s, testConfig(t))
	var honest, heavy []tcpClient
	for i := range 8 {
		honest = append(honest, dialFrom(t, s, fmt.Sprintf("127.1.%d.1", i)))
		if !honest[i].served() {
			t.Fatal("not served")
		}
	}
	for i := range 8 { // four per network
		heavy = append(heavy, dialFrom(t, s, fmt.Sprintf("127.2.%d.1", i%2)))
		if !heavy[i].served() {
			t.Fatal("not served")
		}
	}
	for i := range 2 {
		if !dialFrom(t, s, fmt.Sprintf("127.3.%d.1", i)).served() {
			t.Error("a new client is not served")
		}
		heavy[i].closed()
	}
	for i, conn := range append(honest, heavy[2:]...) {
		if !conn.served() {
			t.Errorf("connection %d is closed", i)
		}
	}
}

// TestTCPMalformed checks that a malformed message with an ID is answered, and that a message that
// is not a query ends the connection. The queries before it are answered.
func TestTCPMalformed(t *testing.T) {
	s := new(Server)
	serve(t, s, testConfig(t))
	good, err := question("mail.example.com. A").Pack()
	if err != nil {
		t.Fatal(err)
	}
	response := slices.Clone(good)
	response[2] |= 0x80
	frame := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	for name, test := range map[string]struct {
		sent   []byte
		rcodes []int
	}{
		"cut": {sent: slices.Concat(frame(good[:20]), frame(good)),
			rcodes: []int{dns.RcodeFormatError, dns.RcodeSuccess}},
		"no id": {sent: slices.Concat(frame(good), frame(good[:11])), rcodes: []int{dns.RcodeSuccess}},
		"response": {sent: slices.Concat(frame(good), frame(response), frame(good)),
			rcodes: []int{dns.RcodeSuccess}},
		"nothing":        {sent: []byte{0, 0}},
		"response alone": {sent: frame(response)},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", s.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // less than the idle timeout
			if _, err := conn.Write(test.sent); err != nil {
				t.Fatal(err)
			}
			if name == "cut" {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			reader := &dns.Conn{Conn: conn}
			for _, want := range test.rcodes {
				resp, err := reader.ReadMsg()
				if err != nil || resp.Rcode != want || resp.Id != 4711 {
					t.Fatalf("response is %v, %v", resp, err)
				}
			}
			if resp, err := reader.ReadMsg(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("response is %v, %v, want the end", resp, err)
			}
		})
	}
}
