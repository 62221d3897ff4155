package storage

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// copyFolder replaces a folder by a copy of another.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// warnings opens a store and returns what it has to say.
func warnings(t *testing.T, dir string) (*Store, string) {
	t.Helper()
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s := open(t, Options{Dir: dir, Disk: 64 << 20, Memory: 8 << 20, Log: log})
	return s, b.String()
}

// purgers purge as an edge that follows a log, and as one that has only its own purges.
var purgers = map[string]func(t *testing.T, s *Store, seq uint64, p Purge){
	"of a log": func(t *testing.T, s *Store, seq uint64, p Purge) {
		if err := s.Apply([]Purge{p}, Position{Log: 7, Seq: seq}); err != nil {
			t.Fatal(err)
		}
	},
	"of its own": func(t *testing.T, s *Store, _ uint64, p Purge) {
		if _, err := s.Purge(p); err != nil {
			t.Fatal(err)
		}
	},
}

// losses are ways to lose records of purges.
var losses = []struct {
	name string
	lose func(t *testing.T, purges, older string)
	at   Position // afterwards, where a log is followed
}{
	{"deleted", func(t *testing.T, purges, _ string) {
		if err := os.RemoveAll(purges); err != nil {
			t.Fatal(err)
		}
	}, Position{}},
	{"emptied", func(t *testing.T, purges, _ string) { copyFolder(t, t.TempDir(), purges) }, Position{}},
	{"older", func(t *testing.T, purges, older string) { copyFolder(t, older, purges) }, Position{Log: 7, Seq: 1}},
	{"without a table", func(t *testing.T, purges, _ string) {
		hurtRecords(t, purges, "*.sst", nil)
	}, Position{}},
	{"damaged", func(t *testing.T, purges, _ string) {
		hurtRecords(t, purges, "*.sst", []byte("none"))
	}, Position{}},
	{"without the manifest", func(t *testing.T, purges, _ string) {
		hurtRecords(t, purges, "MANIFEST", nil)
	}, Position{}},
}

// What was purged is not used when the records of purges are lost and the objects are not.
func TestLostRecords(t *testing.T) {
	for _, c := range losses {
		for kind, purge := range purgers {
			t.Run(c.name+" "+kind, func(t *testing.T) {
				t.Parallel()
				dir, older := t.TempDir(), t.TempDir()
				s := open(t, Options{Dir: dir, Disk: 64 << 20})
				purge(t, s, 1, Purge{URLs: []string{"/else"}})
				put(t, s, "/before", []byte("old"))
				closeStore(t, s)
				copyFolder(t, filepath.Join(dir, "purges"), older)
				s = open(t, Options{Dir: dir, Disk: 64 << 20})
				for seq := range uint64(20) {
					// so that later ones have lower sequences than objects, if they begin anew
					purge(t, s, 2+seq, Purge{URLs: []string{fmt.Sprint("/else/", seq)}})
				}
				put(t, s, "/later", []byte("old"))
				purge(t, s, 22, Purge{URLs: []string{"/before"}})
				closeStore(t, s)
				c.lose(t, filepath.Join(dir, "purges"), older)

				s, said := warnings(t, dir)
				if o := s.Get("/before"); o != nil && !o.Suspect {
					t.Error("what was purged is served as it is")
				}
				if o := s.Get("/later"); o != nil && !o.Suspect {
					t.Error("what may have been purged is served as it is")
				}
				if strings.Count(said, "purge records") != 1 || !strings.Contains(said, "records are lost") {
					t.Errorf("the log says %q", said)
				}
				if got := s.Position(); kind == "of a log" && got != c.at {
					t.Errorf("the log is followed from %v on, want %v", got, c.at)
				}
				put(t, s, "/new", []byte("new"))
				want(t, s, "/new", []byte("new"))
				purge(t, s, 23, Purge{URLs: []string{"/later"}})
				if s.Get("/later") != nil {
					t.Error("a purge afterwards does not cover what is older")
				}
				closeStore(t, s)
				s, said = warnings(t, dir)
				defer closeStore(t, s)
				if o := s.Get("/before"); said != "" || o != nil && !o.Suspect {
					t.Errorf("after another start: %+v, the log says %q", o, said)
				}
				if o := s.Get("/new"); o == nil || o.Stale {
					t.Errorf("after another start what was stored since is %+v", o)
				}
			})
		}
	}
}

// hurtRecords replaces the content of the files of a pattern, or removes them.
func hurtRecords(t *testing.T, dir, pattern string, content []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, dir, err)
	}
	for _, f := range files {
		if content == nil {
			err = os.Remove(f)
		} else {
			err = os.WriteFile(f, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A folder of an earlier version does not tell which records it should have: without them the cache
// begins anew.
func TestLostRecordsOfAnEarlierVersion(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Disk: 64 << 20})
	put(t, s, "/a", []byte("old"))
	if _, err := s.Purge(Purge{URLs: []string{"/a"}}); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if err := os.RemoveAll(filepath.Join(dir, "purges")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "segments", witnessName)); err != nil {
		t.Fatal(err)
	}
	s, said := warnings(t, dir)
	defer closeStore(t, s)
	if s.Get("/a") != nil || !strings.Contains(said, "begins anew") {
		t.Errorf("%+v, the log says %q", s.Get("/a"), said)
	}
}

// Objects that are lost while the records are there harm nothing, and nor does a store without
// purges that loses its records.
func TestLostObjects(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Disk: 64 << 20})
	put(t, s, "/a", []byte("a"))
	closeStore(t, s)
	if err := os.RemoveAll(filepath.Join(dir, "purges")); err != nil {
		t.Fatal(err)
	}
	s, said := warnings(t, dir)
	if o := s.Get("/a"); o == nil || o.Stale || said != "" {
		t.Errorf("nothing was ever purged: %+v, the log says %q", o, said)
	}
	if err := s.Apply([]Purge{{URLs: []string{"/b"}}}, Position{Log: 3, Seq: 9}); err != nil {
		t.Fatal(err)
	}
	epoch := s.Epoch()
	closeStore(t, s)
	if err := os.RemoveAll(filepath.Join(dir, "segments")); err != nil {
		t.Fatal(err)
	}
	s, said = warnings(t, dir)
	defer closeStore(t, s)
	if said != "" || s.Position() != (Position{Log: 3, Seq: 9}) || s.Epoch() < epoch || s.Epoch() >= lostSequences {
		t.Errorf("position %v, sequence %d, the log says %q", s.Position(), s.Epoch(), said)
	}
	put(t, s, "/a", []byte("new"))
	want(t, s, "/a", []byte("new"))
}
