package storage

import (
	"errors"
	"testing"
)

func TestPurgeByKind(t *testing.T) {
	cases := []struct {
		name  string
		purge Purge
		gone  []string
	}{
		{"url", Purge{URLs: []string{"h/a"}}, []string{"h/a"}},
		{"prefix", Purge{Prefixes: []string{"h/img/"}}, []string{"h/img/1", "h/img/2"}},
		{"tag", Purge{Tags: []string{"red"}}, []string{"h/a", "h/img/1"}},
		{"all", Purge{All: true}, []string{"h/a", "h/b", "h/img/1", "h/img/2"}},
		{"several", Purge{URLs: []string{"h/b", "h/none"}, Tags: []string{"blue"}}, []string{"h/b", "h/img/2"}},
		{"nothing", Purge{}, nil},
	}
	for _, c := range cases {
		for _, soft := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, Options{Dir: dir, Memory: 8 << 20})
				put(t, s, "h/a", []byte("a"), "red")
				put(t, s, "h/b", []byte("b"))
				put(t, s, "h/img/1", []byte("1"), "green", "red")
				put(t, s, "h/img/2", []byte("2"), "blue")
				for _, k := range []string{"h/a", "h/b"} { // into memory
					s.Get(k)
				}
				c.purge.Soft = soft
				if _, err := s.Purge(c.purge); err != nil {
					t.Fatal(err)
				}
				for range 2 { // at once, and after a restart
					for _, k := range []string{"h/a", "h/b", "h/img/1", "h/img/2"} {
						hit := false
						for _, g := range c.gone {
							hit = hit || g == k
						}
						o := s.Get(k)
						switch {
						case soft && (o == nil || o.Stale != hit):
							t.Errorf("%s: %+v, want stale %v", k, o, hit)
						case !soft && (o == nil) != hit:
							t.Errorf("%s: gone %v, want %v", k, o == nil, hit)
						}
					}
					closeStore(t, s)
					s = open(t, Options{Dir: dir})
				}
				put(t, s, "h/a", []byte("new"), "red")
				want(t, s, "h/a", []byte("new"))
				closeStore(t, s)
			})
		}
	}
}

func TestPurgeCoversAFillThatBeganBefore(t *testing.T) {
	s := open(t, Options{})
	defer closeStore(t, s)
	w := s.Create(Header{Key: "/a", URL: "/a", Epoch: s.Epoch()})
	if _, err := s.Purge(Purge{URLs: []string{"/a"}}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("old"))
	if _, err := w.Commit(nil, nil); err != nil {
		t.Fatal(err)
	}
	if s.Get("/a") != nil {
		t.Error("what was fetched before the purge is found after it")
	}
}

func TestSoftAfterHardStaysHard(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	put(t, s, "/a", []byte("a"))
	for _, soft := range []bool{false, true} {
		if _, err := s.Purge(Purge{Tags: []string{"none"}, URLs: []string{"/a"}, Soft: soft}); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	s = open(t, Options{Dir: dir})
	defer closeStore(t, s)
	if s.Get("/a") != nil {
		t.Error("a soft purge undid a hard one")
	}
}

// A purge whose record did not reach the disk before the power went is applied again by who follows
// a log, also to objects that were fetched after it at first.
func TestPurgesLostWithThePower(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Disk: 64 << 20})
	for range 3 {
		if _, err := s.Purge(Purge{URLs: []string{"x"}}); err != nil {
			t.Fatal(err)
		}
	}
	kept := s.Epoch() // what the disk has
	closeStore(t, s)

	// As if it had not been closed, and purges up to kept+7 had been lost, after which an object
	// was stored.
	s = open(t, Options{Dir: dir, Disk: 64 << 20})
	s.stop()
	s.work.Wait() // the keeper looks at purges too
	epoch := s.Epoch() + 7
	if err := errors.Join(s.purges.db.Close(), s.openRecords()); err != nil {
		t.Fatal(err)
	}
	if s.Epoch() <= epoch || kept >= s.Epoch() {
		t.Fatalf("sequences go on at %d, after objects of %d", s.Epoch(), epoch)
	}
	if err := s.Apply([]Purge{{URLs: []string{"a"}}}, Position{Log: 1, Seq: 1}); err != nil {
		t.Fatal(err)
	}
	if !s.Purged(epoch, "a", nil) {
		t.Error("an object that was fetched after the lost purges is immune to those that come again")
	}
	if err := s.Apply([]Purge{{All: true, Soft: true, Suspect: true}}, Position{Log: 2}); err != nil {
		t.Fatal(err)
	}
	if gone, stale, suspect := s.purges.covers(epoch, "b", nil); gone || !stale || !suspect {
		t.Errorf("gone %v, stale %v, suspect %v", gone, stale, suspect)
	}
	closeStore(t, s)
	s = open(t, Options{Dir: dir, Disk: 64 << 20})
	defer closeStore(t, s)
	if got := s.Position(); got != (Position{Log: 2}) {
		t.Errorf("position %v", got)
	}
	if _, _, suspect := s.purges.covers(epoch, "b", nil); !suspect {
		t.Error("the store forgets that objects are suspect")
	}
}

// A position is durable with its mark, unless an earlier version wrote another one after it.
func TestMarkOfPosition(t *testing.T) {
	dir := t.TempDir()
	for _, at := range []Position{{Log: 1, Seq: 9, Mark: 1 << 62}, {Log: 1, Seq: 10, Mark: 7},
		{Log: 2, Seq: 10, Mark: 8}, {Log: 2, Seq: 10}} {
		s := open(t, Options{Dir: dir, Disk: 64 << 20})
		if err := s.Apply([]Purge{{URLs: []string{"a"}}}, at); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
		s = open(t, Options{Dir: dir, Disk: 64 << 20})
		if got := s.Position(); got != at {
			t.Errorf("position %+v, want %+v", got, at)
		}
		if s.Epoch() > 1000 {
			t.Errorf("a mark is taken for a sequence: %d", s.Epoch())
		}
		closeStore(t, s)
	}
	s := open(t, Options{Dir: dir, Disk: 64 << 20})
	if err := s.Apply(nil, Position{Log: 2, Seq: 11, Mark: 9}); err != nil {
		t.Fatal(err)
	}
	err := s.purges.write(s.Epoch(), map[purgeKey]epochs{{purgeLog, ""}: {2, 12}}) // as an earlier version does
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = open(t, Options{Dir: dir, Disk: 64 << 20})
	defer closeStore(t, s)
	if got := s.Position(); got != (Position{Log: 2, Seq: 12}) {
		t.Errorf("position %+v, of which nobody has a mark", got)
	}
}

// What clients invalidate takes bounded memory, and is gone all the same, also after a restart.
func TestInvalidationsAreBounded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Memory: 8 << 20, Records: 1})
	put(t, s, "h/older", nil) // so that no record is forgotten
	if _, err := s.Purge(Purge{URLs: []string{"h/b"}}); err != nil {
		t.Fatal(err)
	}
	put(t, s, "h/a", []byte("old"))
	put(t, s, "h/b", []byte("old"))
	for _, u := range []string{"h/a", "h/b", "h/none"} { // the second has a record already
		if err := s.Invalidate(Purge{URLs: []string{u}, Tags: []string{"x"}}, u); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Stats().Purges; n != 2 {
		t.Errorf("%d records", n)
	}
	for range 2 {
		for _, k := range []string{"h/a", "h/b"} {
			if o := s.Get(k); o != nil && len(o.Data()) > 0 {
				t.Errorf("%s is there", k)
			}
		}
		closeStore(t, s)
		s = open(t, Options{Dir: dir, Records: 1})
	}
	put(t, s, "h/a", []byte("new"))
	want(t, s, "h/a", []byte("new"))
	if _, err := s.Purge(Purge{URLs: []string{"h/a"}}); err != nil { // an operator's, which has no bound
		t.Fatal(err)
	}
	if s.Get("h/a") != nil {
		t.Error("a purge left the object")
	}
	closeStore(t, s)
}
