package cache

import (
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// supersede removes the response that was stored for a request, if the origin's new response is not
// stored but shows that the old one is no longer valid. Otherwise the old one would be served
// again: while it is fresh, within stale-while-revalidate, or when the origin is down.
func (s *Cache) supersede(t *fetch, answer *httpcache.Stored) {
	if !answer.Supersedes() {
		return
	}
	// A response that was stored meanwhile may be newer than this one.
	e, _ := s.objects.find(t.meta.uri, t.client)
	if e == nil || e.ResponseTime.After(answer.RequestTime) {
		return
	}
	if t.stage == origin.ToOrigin && (t.site.Origin.Ring != nil || t.site.Origin.Shield != nil) {
		s.objects.changed.Put(t.meta.url, "superseded", time.Now()) // other edges don't know of this response
	}
	s.forgetURL(t.meta.url, e.object.Key())
}

// forgetURL removes all objects of a URL, or at least the object with a key. They stay removed
// after a restart.
func (s *Cache) forgetURL(url, key string) {
	if err := s.Store.Invalidate(storage.Purge{URLs: []string{url}}, key); err != nil {
		s.Log.Warn("an outdated stored response can't be removed", "url", url, "error", err)
	}
}
