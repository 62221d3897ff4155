package edge

import (
	"context"
	"net/http"
	"testing"

	"github.com/kaiku-cdn/kaiku/storage"
)

// What a peer has to have applied is told by the mark of the entry, too: sequences are used twice
// when the log loses a part.
func TestPeerOfAnotherHistory(t *testing.T) {
	t.Parallel()
	at := func(seq, mark uint64) storage.Position { return storage.Position{Log: 1, Seq: seq, Mark: mark} }
	for name, c := range map[string]struct {
		have, want storage.Position
		ok         bool
	}{
		"the same":              {at(5, 50), at(5, 50), true},
		"more":                  {at(6, 60), at(5, 50), true},
		"less":                  {at(4, 40), at(5, 50), false},
		"another entry":         {at(5, 51), at(5, 50), false},
		"more of what was lost": {at(9, 45), at(5, 50), false},
		"an earlier version's":  {at(5, 50), at(5, 0), true},
		"it has none":           {at(6, 0), at(5, 50), true},
		"another log":           {storage.Position{Log: 2, Seq: 9, Mark: 90}, at(5, 50), false},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, static("a"))
			e.Purges = &quietFleet{}
			asks := http.Header{}
			if err := e.Store.Apply(nil, c.want); err != nil {
				t.Fatal(err)
			}
			e.setPurges(asks)
			if err := e.Store.Apply(nil, c.have); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // nothing more comes
			if got := e.knowsPurges(ctx, asks); got != c.ok {
				t.Errorf("%v answers who has %v: %t", c.have, c.want, got)
			}
		})
	}
	e := newEdge(t, static("a"))
	e.Purges = &quietFleet{}
	for _, text := range []string{"1", "1 2 3", "x 1", "1 x", " ", "-1 1"} {
		if e.knowsPurges(t.Context(), http.Header{purgesField: {text}}) {
			t.Errorf("%q is taken", text)
		}
	}
}

// A purge that may be of one site only, by who has another fleet file, is of what this edge has
// in a site of another name. It is not purged, and nothing is used without validation.
func TestPurgeOfSiteThatWasRenamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		site, host string
		fwd        string
	}{
		"renamed":            {"old", "www.example", "stale"},
		"another site's":     {"shop", "www.example", ""},
		"of no site":         {"old", "none.example", ""},
		"of its own":         {"www", "www.example", "uri-miss"},
		"of none, unlimited": {"", "none.example", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t, static("a", "Cache-Control: max-age=60", `Etag: "a"`))
			site := e.sites.Load().list[0]
			site.Name, site.Hosts = "www", []string{"www.example"}
			e.SetSites([]*Site{site, {Name: "shop", Hosts: []string{"shop.example"}, Origin: site.Origin}})
			e.get("/a", "Host: www.example").wants(t, 200, "a")
			l := Logged{Site: c.site, PurgeRequest: PurgeRequest{Hosts: []string{c.host}}}
			if err := e.Apply([]Logged{l}, storage.Position{Log: 1, Seq: 1}); err != nil {
				t.Fatal(err)
			}
			if a := e.get("/a", "Host: www.example"); a.cacheStatus()["fwd"] != c.fwd {
				t.Errorf("%v", a.cacheStatus())
			}
		})
	}
}
