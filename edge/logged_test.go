package edge

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/storage"
)

// entryOf is a purge as the log has it.
func entryOf(t testing.TB, p purge.Request) string {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// An edge goes on with the log past entries that it can't apply as they are, and validates what it
// has, as it can't tell what they were of.
func TestEntriesThatCantBeApplied(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	for name, bad := range map[string]string{
		"a long tag":        entryOf(t, purge.Request{Tags: []string{long}}),
		"a long URL":        entryOf(t, purge.Request{URLs: []string{"http://www.example/" + long}}),
		"a long prefix":     entryOf(t, purge.Request{Prefixes: []string{"http://www.example/" + long}}),
		"a long host":       entryOf(t, purge.Request{Hosts: []string{long}}),
		"no JSON":           "\x00\xff",
		"nothing":           "",
		"of another kind":   `[1]`,
		"an unknown member": `{"all":true,"until":"noon"}`,
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, static("a", "Cache-Control: max-age=60", `Etag: "a"`))
			e.get("/a").wants(t, 200, "a")
			after := storage.Position{Log: 1, Seq: 2}
			good := entryOf(t, purge.Request{Tags: []string{"other"}})
			if err := e.Apply([]purge.Logged{purge.ParseLogged("", []byte(bad)), purge.ParseLogged("", []byte(good))},
				after); err != nil {
				t.Fatalf("the edge would try again for ever: %v", err)
			}
			if at := e.Store.Position(); at != after {
				t.Errorf("it is at %v, want %v", at, after)
			}
			if a := e.get("/a"); a.cacheStatus()["fwd"] != "stale" {
				t.Errorf("what it had is used without validation: %v", a.cacheStatus())
			}
			if a := e.get("/a"); !a.isHit() {
				t.Errorf("what was validated is not used: %v", a.cacheStatus())
			}
			if a := e.admin("GET", "/metrics", ""); !strings.Contains(a.body,
				"\nkaiku_edge_purges_not_understood_total 1\n") {
				t.Error("the metrics don't tell of it")
			}
		})
	}
}

// What says that the log lost purges makes everything stale, and is no purge of a node that may
// purge one site.
func TestLostPurges(t *testing.T) { overProtocols(t, testLostPurges) }

func testLostPurges(t *testing.T, p protocol) {
	e := p.newEdge(t, static("a", "Cache-Control: max-age=60", `Etag: "a"`))
	e.get("/a").wants(t, 200, "a")
	if l := purge.ParseLogged("www", purge.LostPurges); l.Lost {
		t.Error("a node that may purge one site says so")
	}
	l := purge.ParseLogged("", purge.LostPurges)
	if err := e.Apply([]purge.Logged{l}, storage.Position{Log: 1, Seq: 1}); err != nil || !l.Lost {
		t.Fatal(l, err)
	}
	if a := e.get("/a"); a.cacheStatus()["fwd"] != "stale" {
		t.Errorf("what it had is used without validation: %v", a.cacheStatus())
	}
	if a := e.admin("GET", "/metrics", ""); !strings.Contains(a.body, "\nkaiku_edge_purges_not_understood_total 0\n") {
		t.Error("it is not understood")
	}
}

// No purge that edges could not apply gets into the log.
func TestLongPurgesAreRefused(t *testing.T) { overProtocols(t, testLongPurgesAreRefused) }

func testLongPurgesAreRefused(t *testing.T, p protocol) {
	e := p.newEdge(t, static("a", "Cache-Control: max-age=60"))
	long := strings.Repeat("x", storage.MaxPurgeValue)
	for _, p := range []purge.Request{
		{Tags: []string{"a", long + "x"}},
		{URLs: []string{"http://www.example/" + long}},
		{Prefixes: []string{"http://www.example/" + long}},
		{Hosts: []string{long}},
	} {
		if a := e.purge(entryOf(t, p)); a.status != 400 || !strings.Contains(a.body, "16384") {
			t.Errorf("%.30s: %d, %.200s", entryOf(t, p), a.status, a.body)
		}
	}
	if a := e.purge(entryOf(t, purge.Request{Tags: []string{long}})); a.status != 200 {
		t.Errorf("the longest tag: %d, %s", a.status, a.body)
	}
}

// Whatever is in the log, an edge goes on following.
func FuzzLogged(f *testing.F) {
	f.Add("", []byte(`{"urls":["http://www.example/a"],"tags":["t"],"hosts":["www.example"],"soft":true}`))
	f.Add("www", []byte(`{"prefixes":["http://www.example/"]}`))
	f.Add("www", []byte(`{"all":true}`))
	f.Add("", []byte("{"))
	e := newEdge(f, static("a", "Cache-Control: max-age=60"))
	seq := uint64(0)
	f.Fuzz(func(t *testing.T, site string, b []byte) {
		seq++
		after := storage.Position{Log: 1, Seq: seq}
		if err := e.Apply([]purge.Logged{purge.ParseLogged(site, b)}, after); err != nil {
			t.Fatal(err)
		}
		if at := e.Store.Position(); at != after {
			t.Fatalf("it is at %v, want %v", at, after)
		}
	})
}
