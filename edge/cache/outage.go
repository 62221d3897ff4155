package cache

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/edge/ttlset"
	"github.com/kaiku-cdn/kaiku/origin"
)

// SlowFailure is how long a failed fetch must have taken to be remembered. A faster failure costs
// the client little, and retrying at once shows soonest that the origin is back.
const SlowFailure = time.Second

// Outage is a site whose origin did not respond to the last request, and kept the client waiting.
type Outage struct {
	Site  string    `json:"site"`
	Since time.Time `json:"since"` // of the first such fetch
	// Last is the failure of the last fetch.
	Last origin.Failure `json:"last_failure"`
}

// outages are the outages by site. The zero value is ready to use.
type outages struct {
	mu     sync.Mutex
	bySite map[string]Outage
}

// begin records that the origin of a site kept a client waiting and did not respond.
func (o *outages) begin(site string, f origin.Failure) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bySite == nil {
		o.bySite = map[string]Outage{}
	}
	since := f.At
	if old, ok := o.bySite[site]; ok && f.At.Sub(old.Last.At) < ttlset.TTL {
		since = old.Since
	}
	o.bySite[site] = Outage{site, since, f}
}

// end records that the origin of a site responded.
func (o *outages) end(site string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.bySite, site)
}

// has reports whether a site has a recent outage.
func (o *outages) has(site string, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	out, ok := o.bySite[site]
	return ok && now.Sub(out.Last.At) < ttlset.TTL
}

// Outages returns the present outages, by site.
func (s *Cache) Outages(now time.Time) []Outage {
	var out []Outage
	for _, site := range s.Sites.Now().List {
		if !s.outages.has(site.Name, now) {
			continue
		}
		s.outages.mu.Lock()
		if o, ok := s.outages.bySite[site.Name]; ok {
			out = append(out, o)
		}
		s.outages.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Outage) int { return strings.Compare(a.Site, b.Site) })
	return out
}

// The values of objects.slow: how the last fetch of a key failed.
const (
	slowError  = "answered with an error"
	slowSilent = "did not answer"
)

// recordSlowFailure records a fetch that failed after its client had waited for long, so that the
// next clients need not wait too.
func (s *Cache) recordSlowFailure(site *site.Site, key httpcache.Key, err error, waited time.Duration) {
	f := origin.FailureOf(err, time.Now())
	switch {
	case clientFault(err) != 0:
	case waited < SlowFailure && !origin.IsTimeout(err):
		s.objects.slow.Put(string(key), "", f.At)
	case errors.As(err, new(*statusError)):
		s.objects.slow.Put(string(key), slowError, f.At)
	default:
		s.objects.slow.Put(string(key), slowSilent, f.At)
		s.outages.begin(site.Name, f)
	}
}

// isFailing reports whether a fetch would probably fail after a long wait, so that the stored
// response is served at once. The validation in the background shows when the origin is back.
func (s *Cache) isFailing(x *exchange, d httpcache.Decision) bool {
	if !d.StaleIfDown {
		return false
	}
	now := time.Now()
	switch s.objects.slow.Get(string(x.key), now) {
	case slowError:
		return d.StaleIfError
	case slowSilent:
		return true
	}
	return s.outages.has(x.site.Name, now)
}
