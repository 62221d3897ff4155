//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// purgeResult is how long purges took: from the answer to the purge until the last stale response
// of any edge.
type purgeResult struct {
	Every time.Duration `json:"every"` // interval of the requests to each edge
	// Last has for each purge how long the old version was still seen in any city, in milliseconds.
	// It is 0 or less if the old version was gone before the answer.
	Last []float64 `json:"last"`
	Ack  []float64 `json:"ack"` // how long the answer took
	// At has the same for each edge.
	At map[string][]float64 `json:"at"`
	// Via has the control node that each edge is connected to. From has the edge to which each
	// purge was sent.
	Via  map[string]string `json:"via"`
	From []string          `json:"from"`
	// LongestWay is the longest one-way delay between two machines of the fleet.
	LongestWay time.Duration `json:"longest_way"`
}

// returned is what an edge served after it was cut off while its objects were purged.
type returned struct {
	Cut     time.Duration `json:"cut"` // how long it was cut off
	Objects int           `json:"objects"`
	Old     int           `json:"old"`      // number of responses from before the purge
	Last    time.Duration `json:"last"`     // when the last of them came, after the cut ended
	Errors  int           `json:"errors"`   // requests that failed
	Began   time.Duration `json:"answered"` // when the edge first answered, after the cut ended
}

// put writes an object to the origin. Its content is its version.
func (l *lab) put(name string, version int) error {
	file := filepath.Join(l.dir, "www", name)
	if err := os.WriteFile(file+".new", fmt.Appendf(nil, "%d\n", version), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// purge purges through the admin API of an edge, and returns the time of the answer.
func (l *lab) purge(ctx context.Context, edge string, what map[string]any) (time.Time, error) {
	err := l.admin(ctx, edge, "POST", "/v1/purge", what, nil)
	return time.Now().Round(0), err
}

// purges measures purges over the ocean.
func (l *lab) purges(ctx context.Context, r *report) error {
	if err := l.purgeTimes(ctx, r); err != nil {
		return err
	}
	for _, cut := range []time.Duration{l.maxDisconnected / 3, l.maxDisconnected + 10*time.Second} {
		if l.short && cut < l.maxDisconnected {
			continue
		}
		if err := l.cutOff(ctx, r, cut); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) purgeTimes(ctx context.Context, r *report) error {
	n := 200
	if l.short {
		n = 10
	}
	l.say("%d purges", n)
	res := &purgeResult{Every: 4 * time.Millisecond, At: map[string][]float64{}}
	r.Purge = res
	var err error
	if res.LongestWay, err = longestWay(); err != nil {
		return err
	}
	const name = "v/purged"
	if err := l.put(name, 0); err != nil {
		return err
	}
	var polls []*task
	for _, c := range cities() {
		p, err := l.clients[c.key].begin(job{Poll: &poll{Host: hostWWW, Path: "/" + name, Addr: address(c.edge),
			Every: res.Every}})
		if err != nil {
			return err
		}
		polls = append(polls, p)
	}
	if err := world.Pause(ctx, 2*time.Second); err != nil {
		return err
	}
	acks := make([]time.Time, n+1)
	for k := 1; k <= n; k++ {
		if err := l.put(name, k); err != nil {
			return err
		}
		res.From = append(res.From, cities()[k%3].edge)
		began := time.Now()
		var err error
		urls := []string{"https://" + hostWWW + "/" + name}
		if acks[k], err = l.purge(ctx, cities()[k%3].edge, map[string]any{"urls": urls}); err != nil {
			return err
		}
		res.Ack = append(res.Ack, float64(time.Since(began))/1e6)
		// After three times the longest round trip, all edges have asked the origin.
		if err := world.Pause(ctx, 700*time.Millisecond); err != nil {
			return err
		}
	}
	lasts := make([]time.Time, n+1)
	for i, p := range polls {
		if err := p.stop(); err != nil {
			return err
		}
		var got polled
		if err := p.wait(ctx, &got); err != nil {
			return err
		}
		if got.Errors > 0 {
			return fmt.Errorf("%d requests failed while objects were purged", got.Errors)
		}
		here := make([]time.Time, n+1)
		for _, s := range got.Seen {
			for k := s.Version + 1; k <= n; k++ { // a purge makes all earlier versions stale
				here[k], lasts[k] = later(here[k], s.Last), later(lasts[k], s.Last)
			}
		}
		edge := cities()[i].edge
		for k := 1; k <= n; k++ {
			res.At[edge] = append(res.At[edge], float64(here[k].Sub(acks[k]))/1e6)
		}
	}
	if res.Via, err = l.via(); err != nil {
		return err
	}
	for k := 1; k <= n; k++ {
		res.Last = append(res.Last, float64(lasts[k].Sub(acks[k]))/1e6)
	}
	return nil
}

// note describes the ways between the edges and the log.
func (p *purgeResult) note() string {
	var at []string
	for _, c := range cities() {
		at = append(at, c.edge+" to "+p.Via[c.edge])
	}
	return "Edges were connected to the control plane: " + strings.Join(at, ", ") + "."
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// via returns the control node that each edge is connected to, from the kernel's table of the
// edge's connections.
func (l *lab) via() (map[string]string, error) {
	out, known := map[string]string{}, names()
	for _, c := range cities() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", l.process(c.edge).Pid()))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			// The third field is the remote address, in the machine's byte order, and the fourth
			// the state (proc(5)).
			f := strings.Fields(line)
			if len(f) > 3 && f[3] == "01" && strings.HasSuffix(f[2], ":107E") { // established, to port 4222
				var a uint32
				if _, err := fmt.Sscanf(f[2], "%X:", &a); err != nil {
					return nil, err
				}
				var addr [4]byte
				binary.NativeEndian.PutUint32(addr[:], a)
				out[c.edge] = known[netip.AddrFrom4(addr).String()]
			}
		}
	}
	return out, nil
}

// objects is the number of objects that are purged while an edge is cut off.
const objects = 1000

// cutOff cuts off the edge in Singapore, purges what it has, and checks what it serves after the
// cut.
func (l *lab) cutOff(ctx context.Context, r *report, length time.Duration) error {
	l.say("purges while sin1 is cut off for %v", length)
	generation := l.next() * 2
	prefix := fmt.Sprintf("obj/%d-", generation)
	write := func(version int) error {
		for k := range objects {
			if err := l.put(fmt.Sprintf("%s%d", prefix, k), version); err != nil {
				return err
			}
		}
		return nil
	}
	if err := write(generation); err != nil {
		return err
	}
	cl := l.clients["sin"]
	w := sweep{Host: hostWWW, Prefix: "/" + prefix, Addr: address("sin1"), N: objects, Wait: time.Minute}
	for range 2 { // the second sweep gets hits
		got, err := cl.sweep(ctx, w)
		if err != nil {
			return err
		}
		if got.Errors > 0 || got.Versions[generation].N != objects {
			return fmt.Errorf("sin1 does not have the objects before they are purged: %+v", got)
		}
	}
	if err := l.world.SetLinks("sin1", func(k *world.Link) { k.Cut = true }); err != nil {
		return err
	}
	cutAt := time.Now()
	if err := write(generation + 1); err != nil {
		return err
	}
	for k := 0; k < objects; k += 100 {
		var urls []string
		for i := range 100 {
			urls = append(urls, fmt.Sprintf("https://%s/%s%d", hostWWW, prefix, k+i))
		}
		if _, err := l.purge(ctx, "hel1", map[string]any{"urls": urls}); err != nil {
			return err
		}
	}
	sweeping, err := cl.begin(job{Sweep: &w}) // it retries until the edge can be reached again
	if err != nil {
		return err
	}
	if err := world.Pause(ctx, time.Until(cutAt.Add(length))); err != nil {
		return err
	}
	backAt := time.Now().Round(0)
	if err := l.world.SetLinks("sin1", func(k *world.Link) { k.Cut = false }); err != nil {
		return err
	}
	res := returned{Cut: length, Objects: objects}
	var got swept
	if err := sweeping.wait(ctx, &got); err != nil {
		return err
	}
	res.Began = got.Began.Sub(backAt)
	for end := time.Now().Add(2 * l.maxDisconnected); ; { // until the edge has caught up, and once more
		old := got.Versions[generation]
		res.Old += old.N
		res.Errors += got.Errors
		if old.N > 0 {
			res.Last = old.Last.Sub(backAt)
		}
		if old.N == 0 && time.Since(backAt) > 5*time.Second || time.Now().After(end) {
			break
		}
		got = swept{}
		if got, err = cl.sweep(ctx, w); err != nil {
			return err
		}
	}
	r.Returns = append(r.Returns, res)
	return l.settled(ctx, cities()[2])
}

// longestWay returns half of the longest round trip between two cities.
func longestWay() (longest time.Duration, err error) {
	for _, a := range cities() {
		for _, b := range cities() {
			rtt, err := world.Between(a.place, b.place)
			if err != nil {
				return 0, err
			}
			longest = max(longest, rtt/2)
		}
	}
	return longest, nil
}
