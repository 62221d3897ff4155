package geodns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// TestKeepalive holds RFC 7828: only over TCP, only for those that ask.
func TestKeepalive(t *testing.T) {
	s := newServer(t, testConfig(t))
	for _, test := range []struct {
		name, option string
		tcp          bool
		rcode        int
		want         uint16 // units of 100 ms; 0 is no option
	}{
		{name: "TCP", option: "keepalive:", tcp: true, want: 300},
		{name: "TCP, not asked", option: "nsid:", tcp: true},
		{name: "TCP, with a time", option: "keepalive:0064", tcp: true, rcode: dns.RcodeFormatError},
		{name: "TCP, with an octet", option: "keepalive:00", tcp: true, rcode: dns.RcodeFormatError},
		{name: "UDP", option: "keepalive:"},
		{name: "UDP, with a time", option: "keepalive:0064"},
	} {
		resp := ask(t, s, withOptions(t, "mail.example.com. A", test.option), nowhere, test.tcp)
		if resp.Rcode != test.rcode || (len(resp.Answer) == 1) != (test.rcode == 0) {
			t.Errorf("%s: response is %v", test.name, resp)
		}
		if got := keepaliveOf(resp); got != test.want || (got == 0) != !slices.Contains(optionCodes(resp), optionKeepalive) {
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

// tcpServer serves one end of a connection, in the bubble of the test, and gives the other.
func tcpServer(t *testing.T, s *Server, busy func() bool) *dns.Conn {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serveConn(context.Background(), server, nowhere, busy)
	}()
	t.Cleanup(func() { client.Close(); <-done })
	return &dns.Conn{Conn: client}
}

// openFor tells for how long the server leaves the connection open.
func openFor(t *testing.T, conn net.Conn) time.Duration {
	t.Helper()
	asked := time.Now()
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read %d octets, %v", n, err)
	}
	return time.Since(asked)
}

// TestTCPTimeouts leaves connections idle.
func TestTCPTimeouts(t *testing.T) {
	for _, test := range []struct {
		name   string
		option string // of a query before; "" is none
		busy   bool
		told   uint16
		want   time.Duration
	}{
		{name: "no query", want: idleTimeout},
		{name: "a query", option: "nsid:", want: idleTimeout},
		{name: "keepalive", option: "keepalive:", told: 300, want: keepaliveTimeout},
		{name: "no query, busy", busy: true, want: busyTimeout},
		{name: "keepalive, busy", option: "keepalive:", busy: true, told: 10, want: busyTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := tcpServer(t, newServer(t, testConfig(t)), func() bool { return test.busy })
				if test.option != "" {
					if err := conn.WriteMsg(withOptions(t, "mail.example.com. A", test.option)); err != nil {
						t.Fatal(err)
					}
					resp, err := conn.ReadMsg()
					if err != nil || keepaliveOf(resp) != test.told {
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

// TestTCPSlow sends a query by the octet: it has the time of one query, however often something comes.
func TestTCPSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := tcpServer(t, newServer(t, testConfig(t)), func() bool { return false })
		begin := time.Now()
		for _, err := conn.Conn.Write([]byte{1}); err == nil; _, err = conn.Conn.Write([]byte{1}) {
			time.Sleep(900 * time.Millisecond)
		}
		if got := time.Since(begin); got < idleTimeout || got > idleTimeout+time.Second {
			t.Errorf("open for %v", got)
		}
	})
}

// TestTCPBusyAge uses a connection all the time: for ever, unless there are many.
func TestTCPBusyAge(t *testing.T) {
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			conn := tcpServer(t, newServer(t, testConfig(t)), func() bool { return busy })
			begin := time.Now()
			for time.Since(begin) < 10*busyAge {
				if err := conn.WriteMsg(question("mail.example.com. A")); err != nil {
					break
				}
				if _, err := conn.ReadMsg(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(busyTimeout / 2)
			}
			if got := time.Since(begin); busy != (got <= busyAge+busyTimeout) {
				t.Errorf("busy %v: open for %v", busy, got)
			}
		})
	}
}

// TestTCPClientLimit opens as many connections as a client network may have, and then others.
func TestTCPClientLimit(t *testing.T) {
	s := new(Server)
	serve(t, s, testConfig(t))
	dial := func(from string) *dns.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.DialContext(t.Context(), "tcp", s.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		return &dns.Conn{Conn: conn}
	}
	served := func(conn *dns.Conn) bool {
		t.Helper()
		if conn.WriteMsg(question("mail.example.com. A")) != nil {
			return false
		}
		resp, err := conn.ReadMsg()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return err == nil && len(resp.Answer) == 1
	}
	var conns []*dns.Conn
	for i := range maxTCPClient {
		conn := dial([]string{"127.0.0.1", "127.0.0.77"}[i%2])
		if !served(conn) {
			t.Fatalf("connection %d is closed", i)
		}
		conns = append(conns, conn)
	}
	if served(dial("127.0.0.2")) {
		t.Error("one too many is served")
	}
	if !served(dial("127.0.1.1")) {
		t.Error("another network is not served")
	}
	conns[0].Close()
	for begin := time.Now(); !served(dial("127.0.0.2")); {
		// until the server has seen that there is room
		if time.Since(begin) > 10*time.Second {
			t.Fatal("no room after a connection has ended")
		}
	}
}

// TestTCPMalformed holds that what has an id is answered, and what is no query ends the connection, with what came before
// answered all the same.
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
		"cut":            {sent: slices.Concat(frame(good[:20]), frame(good)), rcodes: []int{dns.RcodeFormatError, dns.RcodeSuccess}},
		"no id":          {sent: slices.Concat(frame(good), frame(good[:11])), rcodes: []int{dns.RcodeSuccess}},
		"response":       {sent: slices.Concat(frame(good), frame(response), frame(good)), rcodes: []int{dns.RcodeSuccess}},
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
