package cache

import (
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// supersede removes what was stored for a request when the origin was asked, if the answer, which
// is not stored itself, shows that it is no longer good. It would come back otherwise: while it is
// fresh, in its stale-while-revalidate window, or when the origin is down.
func (s *Cache) supersede(t *fetch, answer *httpcache.Stored) {
	if !answer.Supersedes() {
		return
	}
	// What was stored meanwhile may be newer than the answer.
	e, _ := s.objects.find(t.meta.uri, t.client)
	if e == nil || e.ResponseTime.After(answer.RequestTime) {
		return
	}
	if t.stage == origin.ToOrigin && (t.site.Origin.Ring != nil || t.site.Origin.Shield != nil) {
		s.objects.changed.Put(t.meta.url, "superseded", time.Now()) // other edges did not see the answer
	}
	s.forgetURL(t.meta.url, e.object.Key())
}

// forgetURL removes all that is stored for a URL, or at least the object with a key, for good:
// after a restart too.
func (s *Cache) forgetURL(url, key string) {
	if err := s.Store.Invalidate(storage.Purge{URLs: []string{url}}, key); err != nil {
		s.Log.Warn("a stored response that is no longer good can't be removed", "url", url, "error", err)
	}
}
