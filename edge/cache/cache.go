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
	// failures are how fetches failed lately, and toldFailures the kinds of them that were logged.
	failures     failures
	toldFailures ttlset.Set
	outages      outages

	loopID string          // tells this edge from every other one in the field CDN-Loop
	base   context.Context // of flights
	cancel context.CancelFunc
	work   sync.WaitGroup // flights
}

// Start readies the cache. Fetches live until Stop; they have the values of ctx, and not its end.
func (s *Cache) Start(ctx context.Context) {
	s.objects = newObjects(s.Store)
	s.flights = &flights{store: s.Store, byKey: map[flightKey]*flight{}, slices: map[sliceKey][]*flight{}}
	s.loopID = "id=" + rand.Text()
	s.base, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
}

// Stop ends fetches that nobody waits for, and waits for them.
func (s *Cache) Stop() {
	s.cancel()
	s.work.Wait()
}

// UnderWay is what a cache is fetching.
type UnderWay struct {
	Flights   int   // fetches that others may join
	Followers int   // requests that wait for, or read along with, one of these
	Bytes     int64 // of their bodies, so far
	URLs      int   // whose fetches are not over, those that nobody may join too
}

// UnderWay tells what is being fetched.
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

// Forget drops what is remembered of keys, as it is after a start. What is stored stays.
func (s *Cache) Forget() {
	for _, known := range []*ttlset.Set{&s.objects.pass, &s.objects.erred, &s.objects.slow, &s.objects.noRange,
		&s.objects.changed, &s.toldFailures} {
		known.Reset()
	}
	s.failures.reset()
	s.flights.readers.reset()
}

// LastFailure is how the last fetch of a key failed; nil if it did not, or if many others failed
// since.
func (s *Cache) LastFailure(key httpcache.Key) *origin.Failure { return s.failures.get(string(key)) }

// Failing is how many keys there are whose last fetch is known to have failed.
func (s *Cache) Failing() int {
	s.failures.mu.Lock()
	defer s.failures.mu.Unlock()
	return len(s.failures.byKey)
}
