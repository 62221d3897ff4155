package cache

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// newCache makes a cache with a store of its own, and one site.
func newCache(t *testing.T) (*Cache, *site.Site) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	store, err := storage.Open(storage.Options{Dir: t.TempDir(), Disk: 64 << 20, Memory: 1 << 20, Floor: 1, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	www := &site.Site{Name: "www", Hosts: []string{"www.example"}}
	s := &Cache{Name: "hel1", Store: store, Sites: new(site.Table), Purger: &purge.Purger{Store: store},
		Panics: &front.Panics{Log: log}, Log: log}
	s.Sites.Set([]*site.Site{www})
	s.Start(t.Context())
	t.Cleanup(func() {
		s.Stop()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, www
}

// A response has so many fragments at most, and its record is small, however long its URL is.
func TestFragmentsAreBounded(t *testing.T) {
	e, _ := newCache(t)
	key := httpcache.Key("http://www.example/" + strings.Repeat("x", 8000))
	s := &httpcache.Stored{Status: 200, Header: http.Header{"Etag": {`"1"`}}, RequestTime: time.Now(),
		ResponseTime: time.Now()}
	large := httpcache.Fragment{Range: httpcache.Range{Start: 1 << 30, Length: 1000}, Key: key.Fragment(`"1"`, 1<<30)}
	var got *entry
	for i := range int64(maxFragments + 10) {
		f := large
		if i > 0 {
			f = httpcache.Fragment{Range: httpcache.Range{Start: 10 * i, Length: 10}, Key: key.Fragment(`"1"`, 10*i)}
		}
		var err error
		if got, err = e.objects.addFragment(&objectMeta{uri: key}, s, f, 1<<40); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(got.fragments, f) || !slices.Contains(got.fragments, large) {
			t.Fatalf("%d: it or the large one went", i)
		}
	}
	if len(got.fragments) != maxFragments || len(got.object.Data()) > 100*maxFragments {
		t.Errorf("%d fragments in %d bytes", len(got.fragments), len(got.object.Data()))
	}
}
