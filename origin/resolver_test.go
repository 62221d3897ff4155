package origin

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// nameserver is a DNS server on loopback that knows one name, origin.example.
type nameserver struct {
	addr string

	mu        sync.Mutex
	ttl       uint32 // of the last address; each one before it has a second more
	addrs     []string
	servfail  bool // answers with SERVFAIL
	truncated bool // truncates answers over UDP
}

func newNameserver(t *testing.T, ttl uint32, addrs ...string) *nameserver {
	t.Helper()
	s := &nameserver{ttl: ttl, addrs: addrs}
	var l net.Listener
	var c net.PacketConn
	for range 20 { // the port must be free for both UDP and TCP
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if c, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			break
		}
		l.Close()
	}
	if c == nil {
		t.Fatal("no port is free")
	}
	s.addr = l.Addr().String()
	t.Cleanup(func() { l.Close(); c.Close() })
	go func() {
		msg := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(msg)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(s.answer(msg[:n], true), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				head := make([]byte, 2)
				for {
					if _, err := io.ReadFull(c, head); err != nil {
						return
					}
					msg := make([]byte, binary.BigEndian.Uint16(head))
					if _, err := io.ReadFull(c, msg); err != nil {
						return
					}
					out := s.answer(msg, false)
					_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
				}
			}()
		}
	}()
	return s
}

// set changes the answers.
func (s *nameserver) set(f func(*nameserver)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *nameserver) answer(query []byte, udp bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	out := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true},
		Questions: m.Questions}
	switch {
	case s.servfail:
		out.RCode = dnsmessage.RCodeServerFailure
	case q.Name.String() != "origin.example.":
		out.RCode = dnsmessage.RCodeNameError
	case udp && s.truncated:
		out.Truncated = true
	default:
		for i, a := range s.addrs {
			head := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET,
				TTL: s.ttl + uint32(len(s.addrs)-1-i)}
			switch ip := netip.MustParseAddr(a); {
			case ip.Is4() && q.Type == dnsmessage.TypeA:
				out.Answers = append(out.Answers,
					dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: ip.As4()}})
			case ip.Is6() && q.Type == dnsmessage.TypeAAAA:
				out.Answers = append(out.Answers,
					dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
			}
		}
	}
	b, err := out.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// newTwinServers starts two servers with the same port, on 127.0.0.1 and 127.0.0.2. Their responses
// are the address that was dialled.
func newTwinServers(t *testing.T) (port string) {
	t.Helper()
	var a, b net.Listener
	for range 20 {
		var err error
		if a, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(a.Addr().String())
		if b, err = net.Listen("tcp", "127.0.0.2:"+port); err == nil {
			break
		}
		a.Close()
	}
	if b == nil {
		t.Skip("127.0.0.2 is not to be had")
	}
	for _, l := range []net.Listener{a, b} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
			_, _ = io.WriteString(w, host)
		}))
		s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
	}
	return port
}

func newNamedPool(t *testing.T, ns *nameserver, port string) *Pool {
	t.Helper()
	return startPool(t, &Pool{Servers: []Server{serverAt(t, "http://origin.example:"+port)}, nameserver: ns.addr,
		Log: discardLog})
}

func TestAllAddressesOfAName(t *testing.T) {
	port := newTwinServers(t)
	p := newNamedPool(t, newNameserver(t, 300, "127.0.0.1", "127.0.0.2"), port)
	seen := map[string]int{}
	for range 10 {
		got, err := fetchBody(t, p, request(t, "GET", "/", ""))
		if err != nil {
			t.Fatal(err)
		}
		seen[got]++
		p.all[0].transport.Load().closeIdle() // the next connection goes to the next address
	}
	if seen["127.0.0.1"] == 0 || seen["127.0.0.2"] == 0 {
		t.Errorf("answers of %v", seen)
	}
}

// A dead address of a name does not delay or fail a request.
func TestDeadAddressOfAName(t *testing.T) {
	port := newTwinServers(t)
	p := newNamedPool(t, newNameserver(t, 300, "127.0.0.2", "127.0.0.3"), port)
	for range 6 {
		if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "127.0.0.2" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		p.all[0].transport.Load().closeIdle()
	}
	p = newNamedPool(t, newNameserver(t, 300, "127.0.0.3", "127.0.0.4"), port)
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); Reason(err) != "connect-failed" {
		t.Errorf("with no address alive: %v", err)
	}
}

// When a name gets another address, requests follow it after the TTL, even if connections to the
// old address are idle. If the DNS server fails, the known addresses stay in use.
func TestNameThatMoves(t *testing.T) {
	port := newTwinServers(t)
	ns := newNameserver(t, 1, "127.0.0.1")
	p := newNamedPool(t, ns, port)
	if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "127.0.0.1" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	ns.set(func(s *nameserver) { s.addrs = []string{"127.0.0.2"} })
	testwait.Until(t, "the new address is used", func() bool {
		got, err := fetchBody(t, p, request(t, "GET", "/", ""))
		if err != nil {
			t.Fatal(err)
		}
		return got == "127.0.0.2"
	})
	ns.set(func(s *nameserver) { s.servfail = true })
	n := p.all[0].resolver
	testwait.Until(t, "the name is asked for in vain", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.err != nil
	})
	p.all[0].transport.Load().closeIdle()
	if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "127.0.0.2" || err != nil {
		t.Errorf("while the name server fails: %q, %v", got, err)
	}
}

func TestNameThatIsNot(t *testing.T) {
	ns := newNameserver(t, 300)
	ns.set(func(s *nameserver) { s.servfail = true })
	p := newNamedPool(t, ns, "80")
	if _, err := fetchBody(t, p, request(t, "POST", "/", "x")); Reason(err) != "dns-error" {
		t.Errorf("reason %q of %v", Reason(err), err)
	}
}

// Close does not wait for a DNS server that does not answer.
func TestCloseWhileANameIsAskedFor(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "http://origin.example")}, nameserver: c.LocalAddr().String(),
		Log: discardLog})
	if _, _, err := c.ReadFrom(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		p.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(8 * time.Second): // the lookup itself times out after ten
		t.Error("it waits")
	}
}

func TestLookup(t *testing.T) {
	for _, c := range []struct {
		name      string
		ttl       uint32
		truncated bool
		addrs     []string
		want      time.Duration
	}{
		{"both families", 77, false, []string{"127.0.0.1", "::1"}, 77 * time.Second},
		{"by TCP", 78, true, []string{"127.0.0.1", "127.0.0.2"}, 78 * time.Second},
		{"no TTL", 0, false, []string{"127.0.0.1"}, minTTL},
		{"a large one", 1 << 31, false, []string{"127.0.0.1"}, maxTTL},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := newNameserver(t, c.ttl, c.addrs...)
			ns.set(func(s *nameserver) { s.truncated = c.truncated })
			addrs, ttl, err := (&resolver{host: "origin.example", nameserver: ns.addr}).lookup(t.Context())
			var got []string
			for _, a := range addrs {
				got = append(got, a.String())
			}
			slices.Sort(got)
			if err != nil || !slices.Equal(got, c.addrs) || ttl != c.want {
				t.Errorf("%v, TTL %v, %v", got, ttl, err)
			}
		})
	}
}

func TestInterleave(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "10.0.0.1": "10.0.0.1", "10.0.0.1 10.0.0.2 ::1": "::1 10.0.0.1 10.0.0.2",
		"::1 ::2 ::3 10.0.0.1": "::1 10.0.0.1 ::2 ::3",
	} {
		var addrs []netip.Addr
		for _, a := range strings.Fields(in) {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		var got []string
		for _, a := range interleave(addrs) {
			got = append(got, a.String())
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("%s: %s, want %s", in, g, want)
		}
	}
}

func TestDialAllEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
	if _, err := dialAll(ctx, "tcp", addrs, "1"); !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(),
		"canceled") {
		t.Errorf("error %v", err)
	}
}

func FuzzTTLs(f *testing.F) {
	ns := &nameserver{ttl: 300, addrs: []string{"127.0.0.1", "127.0.0.2", "::1"}}
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeMX} {
		q := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("origin.example."),
			Type: kind, Class: dnsmessage.ClassINET}}}
		query, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		msg := ns.answer(query, true)
		f.Add(msg)
		f.Add(msg[:len(msg)-3])
	}
	f.Add([]byte{})
	f.Add(make([]byte, 12))
	f.Fuzz(func(t *testing.T, msg []byte) {
		seen := &minTTLSeen{}
		seen.observe(msg)
		got := seen.ttl()
		if got < minTTL || got > maxTTL {
			t.Errorf("a TTL of %v", got)
		}
		var m dnsmessage.Message
		if m.Unpack(msg) != nil {
			return
		}
		whole, err := m.Pack() // packing fixes lengths inside the message
		if err != nil {
			return
		}
		seen = &minTTLSeen{}
		seen.observe(whole)
		got = seen.ttl()
		want := defaultTTL
		for i, a := range m.Answers {
			if ttl := min(max(time.Duration(a.Header.TTL)*time.Second, minTTL), maxTTL); i == 0 || ttl < want {
				want = ttl
			}
		}
		if got != want {
			t.Errorf("a TTL of %v, want %v", got, want)
		}
	})
}
