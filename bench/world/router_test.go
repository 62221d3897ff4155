package world

import (
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a port in memory. out has what the host sends, and got has what it receives, and when.
type pipe struct {
	out  chan []byte
	got  []arrival
	done chan struct{}
}

type arrival struct {
	at   time.Duration // since the start
	id   byte
	size int
}

func newPipe() *pipe { return &pipe{out: make(chan []byte, 1000), done: make(chan struct{})} }

func (p *pipe) Read(b []byte) (int, error) {
	select {
	case data := <-p.out:
		return copy(b, data), nil
	case <-p.done:
		return 0, io.EOF
	}
}

func (p *pipe) Write(b []byte) (int, error) {
	p.got = append(p.got, arrival{time.Since(epoch()), b[1], len(b)})
	return len(b), nil
}

func (p *pipe) Close() error {
	close(p.done)
	return nil
}

// epoch returns the time at which a synctest bubble starts.
func epoch() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

func addr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, n, 1}) }

// packetTo returns a packet of a size. Its type of service field has an ID.
func packetTo(n, id byte, size int) []byte {
	b := make([]byte, size)
	b[0], b[1], b[2], b[3] = 0x45, id, byte(size>>8), byte(size)
	copy(b[16:], addr(n).AsSlice())
	return b
}

// route makes hosts 0 to n-1 and calls send. It returns what each host received within a minute.
func route(t *testing.T, lines []Line, change func(*Router), send func(hosts []*pipe)) (got [][]arrival,
	counts Counts) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(1, func() (alarm, error) { return newTimerAlarm(), nil })
		var hosts []*pipe
		for n, line := range lines {
			hosts = append(hosts, newPipe())
			if err := r.attach(string(rune('a'+n)), addr(byte(n)), line, hosts[n]); err != nil {
				t.Fatal(err)
			}
		}
		change(r)
		send(hosts)
		time.Sleep(time.Minute)
		synctest.Wait()
		counts = r.Counts()
		r.close()
		for _, h := range hosts {
			got = append(got, h.got)
		}
	})
	return got, counts
}

func set(t *testing.T, r *Router, a, b string, change func(*Link)) {
	t.Helper()
	if err := r.SetLink(a, b, change); err != nil {
		t.Fatal(err)
	}
}

func TestRouterDelays(t *testing.T) {
	got, counts := route(t, make([]Line, 3), func(r *Router) {
		set(t, r, "a", "b", func(l *Link) { l.Delay = 52 * time.Millisecond })
		set(t, r, "a", "c", func(l *Link) { l.Delay = time.Millisecond })
	}, func(hosts []*pipe) {
		hosts[0].out <- packetTo(1, 1, 100)
		hosts[0].out <- packetTo(2, 2, 1500)
		hosts[0].out <- packetTo(9, 3, 100) // no host has this address
		hosts[0].out <- []byte{0x60, 0, 0}
		time.Sleep(10 * time.Millisecond)
		hosts[1].out <- packetTo(0, 4, 40)
		hosts[2].out <- packetTo(1, 5, 40) // on a link without delay
	})
	const ms = time.Millisecond
	for host, want := range map[int][]arrival{0: {{62 * ms, 4, 40}}, 1: {{10 * ms, 5, 40}, {52 * ms, 1, 100}},
		2: {{1 * ms, 2, 1500}}} {
		if len(got[host]) != len(want) {
			t.Errorf("host %d got %v, want %v", host, got[host], want)
			continue
		}
		for i := range want {
			if got[host][i] != want[i] {
				t.Errorf("host %d got %v, want %v", host, got[host], want)
			}
		}
	}
	if counts != (Counts{Carried: 4, Nowhere: 2}) {
		t.Errorf("counts are %+v", counts)
	}
}

// A line of 12 kbit/s takes a second for a packet of 1,500 bytes. It drops packets that would wait
// longer than the queue allows.
func TestRouterRates(t *testing.T) {
	for name, lines := range map[string][]Line{
		"up": {{Up: 12_000, Queue: 3 * time.Second}, {}}, "down": {{}, {Down: 12_000, Queue: 3 * time.Second}},
	} {
		got, counts := route(t, lines, func(r *Router) {
			set(t, r, "a", "b", func(l *Link) { l.Delay = 500 * time.Millisecond })
		}, func(hosts []*pipe) {
			for i := range 8 {
				hosts[0].out <- packetTo(1, byte(i), 1500)
			}
		})
		if len(got[1]) != 4 || counts.Full != 4 {
			t.Fatalf("%s: got %v, %+v", name, got[1], counts)
		}
		for i, a := range got[1] {
			if want := time.Duration(i+1)*time.Second + 500*time.Millisecond; a.at != want || a.id != byte(i) {
				t.Errorf("%s: packet %d came after %v as %d, want %v", name, i, a.at, a.id, want)
			}
		}
	}
}

func TestRouterJitterAndLoss(t *testing.T) {
	got, counts := route(t, make([]Line, 2), func(r *Router) {
		set(t, r, "a", "b", func(l *Link) {
			l.Delay, l.Jitter, l.Loss = 50*time.Millisecond, 20*time.Millisecond,
				0.02
		})
	}, func(hosts []*pipe) {
		for i := range 10_000 {
			hosts[0].out <- packetTo(1, byte(i), 50)
			time.Sleep(time.Millisecond)
		}
	})
	if counts.Lost < 140 || counts.Lost > 260 || counts.Lost+counts.Carried != 10_000 {
		t.Errorf("counts are %+v", counts)
	}
	for i, a := range got[1] {
		if i > 0 && a.at < got[1][i-1].at {
			t.Fatalf("packet %d overtook another", i)
		}
	}
	if first := got[1][0].at; first < 50*time.Millisecond || first > 70*time.Millisecond {
		t.Errorf("the first packet came after %v", first)
	}
}

func TestRouterCuts(t *testing.T) {
	got, counts := route(t, make([]Line, 3), func(r *Router) {
		if err := r.SetLinks("b", func(l *Link) { l.Cut = true }); err != nil {
			t.Fatal(err)
		}
		if r.SetLinks("x", func(*Link) {}) == nil || r.SetLink("a", "x", func(*Link) {}) == nil {
			t.Error("a host that is not there has links")
		}
	}, func(hosts []*pipe) {
		hosts[0].out <- packetTo(1, 1, 50)
		hosts[1].out <- packetTo(2, 2, 50)
		hosts[2].out <- packetTo(0, 3, 50)
	})
	if len(got[0]) != 1 || len(got[1]) != 0 || len(got[2]) != 0 || counts.Cut != 2 {
		t.Errorf("got %v, %+v", got, counts)
	}
}

// A cut in one direction leaves the other one open.
func TestRouterOneWay(t *testing.T) {
	got, counts := route(t, make([]Line, 2), func(r *Router) {
		if err := r.SetWay("a", "b", func(l *Link) { l.Cut = true }); err != nil {
			t.Fatal(err)
		}
		if r.SetWay("a", "x", func(*Link) {}) == nil {
			t.Error("there is a way to a host that is not there")
		}
	}, func(hosts []*pipe) {
		hosts[0].out <- packetTo(1, 1, 50)
		hosts[1].out <- packetTo(0, 2, 50)
	})
	if len(got[0]) != 1 || len(got[1]) != 0 || counts.Cut != 1 {
		t.Errorf("got %v, %+v", got, counts)
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := queue{alarm: newTimerAlarm()}
	for i := range maxQueue {
		if !q.push(&packet{at: time.Now().Add(time.Hour)}) {
			t.Fatalf("packet %d was refused", i)
		}
	}
	if q.push(&packet{at: time.Now()}) {
		t.Error("one too many was taken")
	}
}

func TestPlaces(t *testing.T) {
	where := Locations()
	for a := range where {
		for b := range where {
			rtt, err := Between(a, b)
			if err != nil {
				t.Error(err)
				continue
			}
			if a == b {
				continue
			}
			// No cable follows the great circle. The longest detours in public figures are about
			// 2.6 times as long.
			if least := fastest(where[a], where[b]); rtt < least || rtt > 26*least/10 {
				t.Errorf("%s–%s: %v, and light in fibre takes %v", a, b, rtt, least)
			}
		}
	}
	if _, err := Between(Helsinki, "Atlantis"); err == nil {
		t.Error("a round trip to nowhere")
	}
}

func FuzzDestination(f *testing.F) {
	f.Add(packetTo(1, 0, 40))
	f.Add([]byte{0x46, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4})
	f.Add([]byte{0x60})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := Destination(b)
		if ok && (len(b) < headerSize || b[0]>>4 != 4 || addr != netip.AddrFrom4([4]byte(b[16:20]))) {
			t.Errorf("%x has the destination %s", b, addr)
		}
		if !ok && addr.IsValid() {
			t.Errorf("%x has the destination %s and has none", b, addr)
		}
	})
}
