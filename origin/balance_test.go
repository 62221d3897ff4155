package origin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kaiku-cdn/kaiku/fleet/rendezvous"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// errRefused is a refused connection.
var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("refused")}

// newIdlePool returns a pool of servers a, b, c and so on with the given weights. No test sends
// requests to them.
func newIdlePool(t testing.TB, p *Pool, weights ...int) *Pool {
	t.Helper()
	for i, w := range weights {
		s := serverAt(t, fmt.Sprintf("http://192.0.2.%d", i+1))
		p.Servers = append(p.Servers, withWeight(s, w))
	}
	return startPool(t, p)
}

// serverLetter returns the letter of the server of pl, or "" if pl is nil.
func serverLetter(pl *place) string {
	if pl == nil {
		return ""
	}
	return string(rune('a' + pl.b.index))
}

// pickSequence takes and releases n places, and returns the letters of their servers in order.
func pickSequence(p *Pool, now time.Time, n int) string {
	var out strings.Builder
	for range n {
		p.mu.Lock()
		pl, _ := p.take(now, &FetchOptions{}, 0)
		p.mu.Unlock()
		out.WriteString(serverLetter(pl))
		if pl != nil {
			p.release(pl)
		}
	}
	return out.String()
}

func TestSharesAreByWeight(t *testing.T) {
	const total = 100_000
	for _, c := range []struct {
		name         string
		balance      Balance
		keepRequests bool // places are not released
		exact        bool // the outcome is deterministic
	}{
		{"round-robin", RoundRobin, false, true},
		{"round-robin, held", RoundRobin, true, true},
		{"least requests", LeastRequests, false, false},
		{"least requests, held", LeastRequests, true, true},
		{"random", Random, false, false},
		{"hash", Hash, false, false},
	} {
		for _, weights := range [][]int{{1, 2, 5, 8}, {1, 1, 1}, {0, 3}, {7, 1, 1, 1, 1}} {
			t.Run(fmt.Sprint(c.name, weights), func(t *testing.T) {
				p := newIdlePool(t, &Pool{Balance: c.balance, MaxRequests: total}, weights...)
				now := time.Now()
				got := make([]int, len(weights))
				for i := range total {
					p.mu.Lock()
					pl, has := p.take(now, &FetchOptions{hash: rendezvous.Mix(uint64(i))}, 0)
					p.mu.Unlock()
					if pl == nil {
						t.Fatalf("no server, room %v", has)
					}
					got[pl.b.index]++
					if !c.keepRequests {
						p.release(pl)
					}
				}
				sum := 0
				for _, w := range weights {
					sum += max(1, w)
				}
				for i, w := range weights {
					share := float64(max(1, w)) / float64(sum)
					want := total * share
					off := math.Abs(float64(got[i]) - want)
					// Random counts deviate by more than six standard deviations about once in 500
					// million runs.
					if off > 0.02*total || off > 0.02*want && (c.exact || off > 6*math.Sqrt(want*(1-share))) {
						t.Errorf("weight %d: %d picks, want %.0f", w, got[i], want)
					}
				}
			})
		}
	}
}

func TestRoundRobinIsSmooth(t *testing.T) {
	for _, c := range []struct {
		weights []int
		want    string
	}{
		{[]int{5, 1, 1}, "aabacaaaabacaa"}, // the order that nginx produces
		{[]int{1, 1, 1}, "abcabc"},
		{[]int{2, 1}, "abaaba"},
		{[]int{1}, "aaa"},
	} {
		if got := pickSequence(newIdlePool(t, &Pool{}, c.weights...), time.Now(), len(c.want)); got != c.want {
			t.Errorf("weights %v: %s, want %s", c.weights, got, c.want)
		}
	}
}

// A retry takes one turn of the server that gets it and no turn of any other server.
func TestRetryTakesOneTurn(t *testing.T) {
	p := newIdlePool(t, &Pool{Retries: 1}, 1, 1, 1)
	first := pickSequence(p, time.Now(), 1)
	p.mu.Lock()
	p.budget.request(time.Now())
	p.mu.Unlock()
	second := p.acquireAnother(&FetchOptions{}, 1<<0, false)
	if second == nil {
		t.Fatal("there is none")
	}
	p.release(second)
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := first + serverLetter(second); got != "ab" || p.all[1].current > p.all[2].current ||
		p.all[1].current+p.all[2].current != p.all[0].current*-1 {
		t.Errorf("turns %s; after them %v, %v, %v", got, p.all[0].current, p.all[1].current, p.all[2].current)
	}
}

// A new server takes its share of the keys, and no key moves between the old servers.
func TestHashMovesOnlyTheShareOfWhoJoins(t *testing.T) {
	const keys = 20_000
	owners := func(n int) []int {
		weights := make([]int, n)
		p := newIdlePool(t, &Pool{Balance: Hash}, weights...)
		out := make([]int, keys)
		for i := range out {
			p.mu.Lock()
			b, _ := p.pick(time.Now(), &FetchOptions{hash: xxhash.Sum64String(fmt.Sprint("/page/", i))}, 0)
			p.mu.Unlock()
			out[i] = b.index
		}
		return out
	}
	for _, n := range []int{2, 4, 9} {
		before, after := owners(n), owners(n+1)
		moved := 0
		for i := range before {
			if before[i] == after[i] {
				continue
			}
			moved++
			if after[i] != n {
				t.Fatalf("key %d moved from %d to %d, of which neither is new", i, before[i], after[i])
			}
		}
		if want := keys / (n + 1); math.Abs(float64(moved-want)) > 0.1*float64(want) {
			t.Errorf("%d servers and one more: %d of %d keys moved, want about %d", n, moved, keys, want)
		}
	}
}

func TestSlowStart(t *testing.T) {
	const slow, total = 10 * time.Second, 11_000
	for _, balance := range []Balance{RoundRobin, LeastRequests, Random} {
		p := newIdlePool(t, &Pool{Balance: balance, SlowStart: slow}, 1, 1)
		back := time.Now()
		p.all[1].recoveredAt = back
		for _, c := range []struct {
			after time.Duration
			want  float64 // share of the picks
		}{{0, 0.1 / 1.1}, {slow / 2, 0.5 / 1.5}, {slow, 0.5}, {time.Hour, 0.5}} {
			n := strings.Count(pickSequence(p, back.Add(c.after), total), "b")
			if got := float64(n) / total; math.Abs(got-c.want) > 0.03 {
				t.Errorf("balance %d, %v after it came back: a share of %.3f, want %.3f", balance, c.after, got, c.want)
			}
		}
	}
	// A server that has always been up has its full weight.
	if got := pickSequence(newIdlePool(t, &Pool{SlowStart: slow}, 1, 1), time.Now(), 4); got != "abab" {
		t.Errorf("at the beginning: %s", got)
	}
}

// setStates sets the state of each server: "" is up, "bad" is down, "refuses" is down and takes no
// connections.
func setStates(p *Pool, states ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for i, s := range states {
		b := p.all[i]
		wasUp := b.up()
		b.down, b.refusing, b.lastErr = s != "", s == "refuses", errStatus
		p.stateChanged(b, wasUp, now)
	}
}

func TestWhoIsUsed(t *testing.T) {
	for _, c := range []struct {
		name      string
		primaries int
		states    []string // primaries first, then backups
		backups   int
		want      string // six picks
		panics    bool
	}{
		{"all are up", 3, nil, 0, "abcabc", false},
		{"one is unhealthy", 3, []string{"", "bad", ""}, 0, "acacac", false},
		{"most are unhealthy", 3, []string{"", "bad", "bad"}, 0, "abcabc", true},
		{"all are unhealthy", 3, []string{"bad", "bad", "bad"}, 0, "abcabc", true},
		{"half are unhealthy", 2, []string{"bad", ""}, 0, "bbbbbb", false},
		// A server that takes no connections is not used in panic mode.
		{"most refuse", 3, []string{"", "refuses", "refuses"}, 0, "aaaaaa", true},
		{"one refuses, another is unhealthy", 3, []string{"", "refuses", "bad"}, 0, "acacac", true},
		{"backups are spared", 1, nil, 1, "aaaaaa", false},
		{"a backup takes over", 1, []string{"bad"}, 1, "bbbbbb", false},
		{"backups take over", 1, []string{"refuses"}, 2, "bcbcbc", false},
		{"one primary is left", 2, []string{"bad", ""}, 1, "bbbbbb", false},
		{"one primary of three is left", 3, []string{"bad", "bad", ""}, 1, "abcabc", true},
		{"primaries and the backup are unhealthy", 2, []string{"bad", "bad", "bad"}, 1, "ababab", true},
		{"all refuse but a backup that is unhealthy", 1, []string{"refuses", "bad"}, 1, "bbbbbb", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &Pool{SlowStart: -1}
			for i := range c.primaries + c.backups {
				s := serverAt(t, fmt.Sprintf("http://192.0.2.%d", i+1))
				s.Backup = i >= c.primaries
				p.Servers = append(p.Servers, s)
			}
			startPool(t, p)
			setStates(p, c.states...)
			if got := pickSequence(p, time.Now(), 6); got != c.want || p.Status().Panic != c.panics {
				t.Errorf("%s, panic %v; want %s, %v", got, p.Status().Panic, c.want, c.panics)
			}
			// When all servers are up again, the primaries share the requests as before.
			setStates(p, make([]string, len(p.Servers))...)
			for _, b := range p.all {
				b.current = 0
			}
			want := strings.Repeat("abc"[:c.primaries], 6)[:6]
			if got := pickSequence(p, time.Now(), 6); got != want || p.Status().Panic {
				t.Errorf("when all are well again: %s, panic %v; want %s", got, p.Status().Panic, want)
			}
		})
	}
}

// A silent server is passed over until it answers, but is used if there is no other.
func TestSilentServerIsPassedOver(t *testing.T) {
	p := newIdlePool(t, &Pool{}, 1, 1)
	now := time.Now()
	p.mu.Lock()
	first, _ := p.take(now, &FetchOptions{}, 0) // is not released
	p.mu.Unlock()
	if serverLetter(first) != "a" {
		t.Fatalf("%s is first", serverLetter(first))
	}
	b := first.b
	if got := pickSequence(p, now.Add(900*time.Millisecond), 4); strings.Count(got, "a") != 2 &&
		strings.Count(got, "b") != 2 {
		t.Errorf("after 0.9 s: %s", got)
	}
	later := now.Add(1100 * time.Millisecond)
	if got := pickSequence(p, later, 4); got != "bbbb" {
		t.Errorf("after 1.1 s: %s", got)
	}
	setStates(p, "", "bad")
	if got := pickSequence(p, later, 4); got != "aaaa" {
		t.Errorf("with the other unhealthy: %s", got)
	}
	setStates(p, "", "")
	b.lastHeardAt = later // it answered another request
	if got := pickSequence(p, later, 8); !strings.Contains(got, "a") {
		t.Errorf("after an answer: %s", got)
	}
	p.Relays = true // the edge's origin may be slow
	b.lastHeardAt = now
	if got := pickSequence(p, later, 8); !strings.Contains(got, "a") {
		t.Errorf("an edge: %s", got)
	}
}

// A server that takes no connections gets one trial request at a time. All other requests fail at
// once.
func TestTrials(t *testing.T) {
	p := newIdlePool(t, &Pool{}, 1, 1)
	setStates(p, "refuses", "refuses")
	take := func() (*place, error) { return p.acquire(t.Context(), &FetchOptions{}) }
	first, err1 := take()
	second, err2 := take()
	if err1 != nil || err2 != nil || serverLetter(first)+serverLetter(second) != "ab" {
		t.Fatalf("%s, %v; %s, %v", serverLetter(first), err1, serverLetter(second), err2)
	}
	p.lastServerErr = errRefused
	if pl, err := take(); pl != nil || !errors.Is(err, ErrDown) || !errors.Is(err, errRefused) {
		t.Errorf("with both on trial: %s, %v", serverLetter(pl), err)
	}
	p.mu.Lock()
	first.b.trial = false
	p.mu.Unlock()
	p.release(first)
	if pl, err := take(); serverLetter(pl) != "a" || err != nil {
		t.Errorf("after the trial of a: %s, %v", serverLetter(pl), err)
	}
}

// While all servers refuse connections, requests fail. Once a server accepts one, it gets requests
// at once.
func TestDownAndBack(t *testing.T) {
	up := newServer(t, "up")
	open := make(chan struct{})
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, up.URL), serverAt(t, closedURL(t))}, Retries: 1,
		Log: discardLog, Dial: func(ctx context.Context, network, to string) (net.Conn, error) {
			select {
			case <-open:
				return (&net.Dialer{}).DialContext(ctx, network, to)
			default:
				return nil, errRefused
			}
		}})
	for range 20 {
		if _, err := fetchBody(t, p, request(t, http.MethodGet, "/", "")); err == nil ||
			Reason(err) != "connect-failed" && Reason(err) != "origin-down" {
			t.Fatalf("with nothing there: %v", err)
		}
	}
	close(open)
	testwait.Until(t, "the server that is there again answers", func() bool {
		got, err := fetchBody(t, p, request(t, http.MethodGet, "/", ""))
		return err == nil && got == "up"
	})
	// The pool now knows which server is up.
	for range 5 {
		if _, err := fetchBody(t, p, request(t, http.MethodGet, "/", "")); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
	noPlaceTaken(t, p)
}

func BenchmarkPick(b *testing.B) {
	for balance, text := range []string{"round-robin", "least-requests", "random", "hash"} {
		for _, n := range []int{3, 10} {
			b.Run(fmt.Sprintf("%s/%d", text, n), func(b *testing.B) {
				p := newIdlePool(b, &Pool{Balance: Balance(balance)}, make([]int, n)...)
				now := time.Now()
				b.ReportAllocs()
				a := FetchOptions{Client: netip.MustParsePrefix("192.0.2.1/32")}
				for b.Loop() {
					a.hash += 0x9e3779b97f4a7c15
					p.mu.Lock()
					_, _ = p.pick(now, &a, 0)
					p.mu.Unlock()
				}
			})
		}
	}
}

// The server of a key stays the same from one version to the next. Otherwise each upgrade would
// send keys to servers that don't have them.
func TestServersOfKeysStay(t *testing.T) {
	for _, c := range []struct {
		weights []int
		want    string
	}{
		{[]int{1, 1, 1, 1}, "adccbcacbbdbbdcababcbdcdbdaadadbcdccbcbbabbacbdaaa"},
		{[]int{1, 2, 5, 1}, "bdccccacbccbbdcaccbccdccccabdacbcdccccccabbccbdacc"},
	} {
		p := newIdlePool(t, &Pool{Balance: Hash}, c.weights...)
		var got strings.Builder
		for i := range 50 {
			p.mu.Lock()
			o := &FetchOptions{hash: xxhash.Sum64String(fmt.Sprint("https://www.example/", i))}
			pl, _ := p.take(time.Now(), o, 0)
			p.mu.Unlock()
			got.WriteString(serverLetter(pl))
			p.release(pl)
		}
		if got.String() != c.want {
			t.Errorf("weights %v: %s, want %s", c.weights, got.String(), c.want)
		}
	}
}
