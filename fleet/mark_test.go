package fleet

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// putBack makes what a control node that is stopped has in its folder that of another folder.
func putBack(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// An edge that was away while an old backup of the log was put back, so that sequences are used
// twice, takes all that it has as stale. One that has nothing that was lost goes on.
func TestOldBackup(t *testing.T) {
	t.Parallel()
	c := startControl(t, t.TempDir(), 1)[0]
	admin := dial(t, []*control{c}, "deploy", RoleAdmin)
	edge := startEdge(t, dial(t, []*control{c}, "hel1", RoleEdge), Position{})
	testwait.Until(t, "the edge is in touch", edge.InTouch)
	for i := range 3 {
		appendPurge(t, admin, i)
	}
	testwait.Until(t, "the edge has all", func() bool { return edge.Applied().Seq == 3 })
	shared := edge.Applied()
	c.stop()
	backup := t.TempDir()
	putBack(t, c.Dir, backup)
	c.start(t)
	for i := range 2 {
		appendPurge(t, admin, 10+i)
	}
	testwait.Until(t, "the edge has what is lost later", func() bool { return edge.Applied().Seq == 5 })
	edge.stop()
	old := edge.Applied()
	if shared.Mark == 0 || old.Mark == 0 || shared.Mark == old.Mark {
		t.Fatalf("marks of two entries: %+v, %+v", shared, old)
	}

	c.stop()
	putBack(t, backup, c.Dir)
	c.start(t)
	goOn := func(name string, from Position) *testEdge {
		t.Helper()
		e := startEdge(t, dial(t, []*control{c}, name, RoleEdge), from)
		testwait.Until(t, name+" is in touch", e.InTouch)
		return e
	}
	for i := range 3 {
		appendPurge(t, admin, 20+i)
		if e := goOn("nyc1", old); e.timesLost() != 1 {
			t.Errorf("with %d of what it has replaced, an edge took all as stale %d times, want once", i+1,
				e.timesLost())
		} else if now := e.Applied(); now.Seq != uint64(4+i) {
			t.Errorf("it is at %+v", now)
		}
	}
	if e := goOn("fra1", shared); e.timesLost() != 0 || e.has() != 3 {
		t.Errorf("an edge without what was lost took all as stale %d times, and has %d of 3 purges", e.timesLost(),
			e.has())
	}
	// An earlier version noted no marks.
	for name, seq := range map[string]uint64{"sgp1": 5, "syd1": 6} {
		e := goOn(name, Position{Log: old.Log, Seq: seq})
		if now := e.Applied(); e.timesLost() != 0 || now.Seq != 6 || now.Mark == 0 || now.Mark == old.Mark {
			t.Errorf("after an upgrade an edge is at %+v, and took all as stale %d times", now, e.timesLost())
		}
	}
}

// An edge that finds that the log lost what it has applied tells the others, which may lack it; one
// that was away for too long does not.
func TestLogForgot(t *testing.T) {
	t.Parallel()
	c := startControl(t, t.TempDir(), 1)[0]
	client := dial(t, []*control{c}, "hel1", RoleEdge)
	for i := range 3 {
		appendPurge(t, client, i)
	}
	end, _, err := client.position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := end
	other.Mark++
	for name, from := range map[string]Position{
		"another history": other,
		"beyond":          {Log: end.Log, Seq: 9, Mark: 9},
		"another log":     {Log: end.Log + 1, Seq: 9, Mark: 9},
		"the same":        end,
	} {
		var mu sync.Mutex
		ids := map[string]int{}
		f := &Follower{Client: client, Start: from,
			Apply: func([]Logged, Position) error { return nil },
			Lost:  func(Position) error { return nil },
			Forgot: func(_ context.Context, id string) error {
				mu.Lock()
				defer mu.Unlock()
				ids[id]++
				if ids[id] == 1 {
					return ErrUnavailable // it is tried again
				}
				return nil
			}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Serve(ctx) }()
		told := func() (n int) {
			mu.Lock()
			defer mu.Unlock()
			for _, times := range ids {
				n += times
			}
			return n
		}
		testwait.Until(t, name+": the edge has asked twice", func() bool {
			asked := f.touched.Load()
			return asked != nil && (told() >= 2 || strings.HasPrefix(name, "another log") || name == "the same")
		})
		if forgot := name == "another history" || name == "beyond"; (told() >= 2) != forgot {
			t.Errorf("%s: told of %d times", name, told())
		}
		cancel()
		<-done
	}
}

// What a purge refers to has to be what an edge has applied: a copy of the log may have other
// entries in its midst. One that may purge some sites only can't say so.
func TestReference(t *testing.T) {
	t.Parallel()
	c := startControl(t, t.TempDir(), 1)[0]
	client := dial(t, []*control{c}, "hel1", RoleEdge)
	edge := startEdge(t, client, Position{})
	testwait.Until(t, "the edge is in touch", edge.InTouch)
	add := func(site, id string) {
		t.Helper()
		seq, err := client.Append(t.Context(), id, site, id)
		if err != nil {
			t.Fatal(err)
		}
		testwait.Until(t, "it has come", func() bool { return edge.Applied().Seq == seq && edge.Proven() })
	}
	lost := edge.timesLost()
	add("", "a")
	id := edge.EntryID("b")
	if at := edge.Applied(); referenceOf(id) != at {
		t.Fatalf("%q refers to %+v, want %+v", id, referenceOf(id), at)
	}
	add("", id)
	wrong := edge.Applied()
	wrong.Mark++
	elsewhere := wrong
	elsewhere.Log++
	later := wrong
	later.Seq += 10
	for _, p := range []Position{elsewhere, later, {}} {
		add("", "c."+p.reference())
	}
	add("www", "d."+wrong.reference())
	for _, id := range []string{"e.", "e.1.2", "e.1.2.3.4", "e.!.2.3", "e.-1.2.3", "..."} {
		add("", id)
	}
	if n := edge.timesLost() - lost; n != 0 {
		t.Errorf("all became stale %d times", n)
	}
	add("", "f."+wrong.reference())
	if n := edge.timesLost() - lost; n != 1 {
		t.Errorf("all became stale %d times, want once", n)
	}
}

// An edge that knows by a majority that it is right takes nothing as stale because of one copy, and
// avoids that.
func TestCopyThatDiffers(t *testing.T) {
	t.Parallel()
	f := &Follower{Client: &Client{Log: slog.New(slog.DiscardHandler)}}
	if err := f.suspectCopy(&feed{by: "c1"}); !errors.Is(err, errOtherHistory) || f.avoid != "" {
		t.Errorf("nobody has confirmed what it has: %v", err)
	}
	now := time.Now()
	f.proven.Store(&now)
	if err := f.suspectCopy(&feed{}); !errors.Is(err, errOtherHistory) {
		t.Errorf("there is one copy only: %v", err)
	}
	if err := f.suspectCopy(&feed{by: "c1"}); err == nil || errors.Is(err, errOtherHistory) || f.avoid != "c1" {
		t.Errorf("a majority has confirmed what it has: %v", err)
	}
}

// Marks are kept for the newest entries.
func TestMarks(t *testing.T) {
	t.Parallel()
	var m marks
	m.add(7, 70)
	for seq := uint64(8); seq < 8+5*maxMarks; seq++ {
		m.add(seq, seq*10)
		if mark, ok := m.at(seq - min(seq-7, maxMarks-1)); !ok || mark != 10*(seq-min(seq-7, maxMarks-1)) {
			t.Fatalf("after %d: %d, %t", seq, mark, ok)
		}
	}
	if _, ok := m.at(7); ok || len(m.list) > 2*maxMarks {
		t.Errorf("%d marks are kept", len(m.list))
	}
	m.add(3, 0)
	m.learn(3, 30)
	m.learn(3, 31)
	m.learn(4, 40)
	if mark, ok := m.at(3); !ok || mark != 30 {
		t.Errorf("%d, %t", mark, ok)
	}
	m.drop(5)
	if _, ok := m.at(3); ok {
		t.Error("it is not dropped")
	}
}
