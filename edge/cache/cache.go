package cache

import (
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/edge/ttlset"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Cache answers requests from a store, and fetches what is missing. The fields are set before Start
// and not changed after.
type Cache struct {
	Name   string // of the edge, in Via and Cache-Status
	Store  *storage.Store
	Sites  *site.Table
	Purger *purge.Purger
	Panics *front.Panics
	Log    *slog.Logger

	objects *objects
	flights *flights
	coder   *coder
	// failures has the recent failures of fetches, and toldFailures the kinds of failures that were
	// logged.
	failures     failures
	toldFailures ttlset.Set
	outages      outages

	loopID string // tells this edge from every other one in the field CDN-Loop
	// cdnLoop is this edge's member of that field, and via11 that of Via for HTTP/1.1.
	cdnLoop, via11 string

	base   context.Context // of flights
	cancel context.CancelFunc
	work   sync.WaitGroup // flights, and the coder
}

// Start prepares the cache. Fetches and the coder live until Stop. They have the values of ctx, but
// don't end with it.
func (s *Cache) Start(ctx context.Context) {
	s.objects = newObjects(s.Store)
	s.flights = &flights{store: s.Store, byKey: map[flightKey]*flight{}, slices: map[sliceKey][]*flight{}}
	s.loopID = "id=" + rand.Text()
	s.cdnLoop, s.via11 = "kaiku; node="+s.Name+"; "+s.loopID, "1.1 "+s.Name
	s.base, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.coder = newCoder()
	s.work.Go(func() { s.runCoder(s.base) })
}

// Stop cancels all fetches and the coder, and waits for them to end.
func (s *Cache) Stop() {
	s.cancel()
	s.work.Wait()
}

// UnderWay is what a cache is fetching.
type UnderWay struct {
	Flights   int   // fetches that others may join
	Followers int   // requests that wait for, or read along with, one of these
	Bytes     int64 // of their bodies, so far
	URLs      int   // that are being fetched, including fetches that others may not join
}

// UnderWay returns what is being fetched.
func (s *Cache) UnderWay() UnderWay {
	s.flights.mu.Lock()
	defer s.flights.mu.Unlock()
	all := slices.Collect(maps.Values(s.flights.byKey))
	for _, of := range s.flights.slices {
		all = append(all, of...)
	}
	u := UnderWay{Flights: len(all), URLs: len(s.flights.urls)}
	for _, f := range all {
		f.mu.Lock()
		u.Followers += f.followers
		u.Bytes += f.size
		f.mu.Unlock()
	}
	return u
}

// Forget drops all state by key, as after a start. Stored objects stay.
func (s *Cache) Forget() {
	for _, known := range []*ttlset.Set{&s.objects.pass, &s.objects.failing, &s.objects.slow, &s.objects.noRange,
		&s.objects.changed, &s.toldFailures, &s.coder.failed} {
		known.Reset()
	}
	s.failures.reset()
	s.flights.readers.reset()
}

// LastFailure returns how the last fetch of a key failed. It returns nil if the fetch did not fail,
// or if many other keys have failed since.
func (s *Cache) LastFailure(key httpcache.Key) *origin.Failure { return s.failures.get(string(key)) }

// Failing returns the number of keys whose last fetch is known to have failed.
func (s *Cache) Failing() int {
	s.failures.mu.Lock()
	defer s.failures.mu.Unlock()
	return len(s.failures.byKey)
}
