package cache

import (
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// Serve answers a request for a site.
func (s *Cache) Serve(on *front.Exchange, of *site.Site) {
	x := &exchange{w: on, r: on.Request, site: of, target: of.Reduce(on.Target), peer: on.Peer}
	mayStore := s.findKey(x)
	if x.site == nil {
		return
	}
	of = x.site
	if x.peer {
		x.stage, x.position = origin.ParseStage(x.r.Header.Get(origin.TierField)), s.Store.Position()
	}
	x.prepareCoding()
	x.cleanFields()
	r := x.r
	if s.refusedByBucket(x) {
		return
	}
	switch {
	case (r.Method == http.MethodTrace || r.Method == http.MethodOptions) && s.lastHop(x):
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		s.pass(x, "method")
	case of.Bypass, !mayStore, r.Header["If-Match"] != nil, r.Header["If-Unmodified-Since"] != nil:
		s.pass(x, "bypass") // only the origin can evaluate these (RFC 9111, 4.3.2)
	case r.Header.Get("Upgrade") != "", r.ContentLength != 0:
		s.pass(x, "bypass") // a GET with a body has no meaning that a cache knows (RFC 9110, 9.3.1)
	default:
		s.lookup(x)
	}
}

// findKey sets the key of a request, and the origin that another edge asks for. It reports false if
// the response can't be stored, because values are too long for a key. The site is nil if it
// refused the request.
func (s *Cache) findKey(x *exchange) (mayStore bool) {
	if !x.peer {
		x.mark, mayStore = x.site.KeyMark(x.r.Header)
		x.key = x.target.Key().With(x.mark)
		return mayStore
	}
	h := x.r.Header
	name := h.Get(origin.OriginField)
	if mark := h.Get(origin.KeyField); site.IsKeyMark(mark) {
		x.mark = mark
	}
	delete(h, origin.OriginField)
	delete(h, origin.KeyField)
	x.key = x.target.Key().With(x.mark)
	to, known := x.site.ToOrigin(name)
	if x.site = to; !known {
		x.w.Refuse(http.StatusBadGateway, "no such origin")
	}
	return true
}

// refusedByBucket refuses what a bucket is not to be asked. It reports whether it did.
func (s *Cache) refusedByBucket(x *exchange) bool {
	b := x.site.Bucket()
	if b == nil {
		return false
	}
	status, why := b.Refuses(x.r, x.target.Path)
	switch status {
	case 0:
		return false
	case http.StatusMethodNotAllowed:
		x.w.Header()["Allow"] = []string{"GET, HEAD"}
	}
	x.w.Refuse(status, why)
	return true
}

// lookup answers a GET or HEAD from the store or by a flight. It starts again if an object turns
// out to be damaged, or if the response of the flight is another variant.
func (s *Cache) lookup(x *exchange) {
	defer s.release(x)
	directives := httpcache.RequestDirectives(x.r.Header)
	for range 4 {
		x.serveStaleAfter = 0
		if x.peer {
			x.position = s.Store.Position() // before the epoch, so that the answer is not older
		}
		x.epoch = s.Store.Epoch() // before the look-up, so that a later purge covers the response
		e, objectKey := s.objects.find(x.key, x.r.Header)
		if e == nil && objectKey == x.key && x.variant != "" {
			objectKey = x.variant
		}
		if e != nil && e.size >= 0 && e.StrongValidator() == "" && !e.covers(x.r) {
			e = nil // without a strong validator, fragments can't be joined
		}
		if e != nil {
			x.dropDatedRange(e.Stored, e.length())
		}
		if e == nil {
			if s.miss(x, directives, objectKey) {
				return
			}
			continue
		}
		d := x.site.Policy.Decide(directives, e.Stored, e.object.Stale, time.Now())
		switch {
		case !s.Purger.Trusts() || e.object.Suspect: // this edge may have missed a purge of it
			d.Action, d.Forward, d.StaleIfError, d.StaleIfDown = httpcache.Validate, "stale", false, false
		case s.Purger.CutOff() && d.Action != httpcache.Validate && !directives.OnlyIfCached &&
			x.r.Method != http.MethodHead:
			// this edge may have missed a purge too, but it serves the response if the origin is
			// down
			if x.site.Origin.Origin.Answers() {
				d.Action, d.Forward, d.StaleIfError, d.StaleIfDown = httpcache.Validate, "stale", true, true
				x.serveStaleAfter = ServeStaleAfter
			} else {
				s.revalidate(x, e, d, objectKey) // notices when the origin is back
			}
		}
		if x.peer && d.Action == httpcache.ServeStale {
			// the peer validates in the background, and needs a fresh response
			d.Action = httpcache.Validate
		}
		detail := "stale-while-revalidate"
		if d.Action == httpcache.Validate && !directives.NoCache && !directives.OnlyIfCached && s.isFailing(x, d) {
			d.Action, detail = httpcache.ServeStale, staleIfError
		}
		st := httpcache.Status{Hit: true, TTL: d.TTL, HasTTL: true, Key: x.key}
		switch d.Action {
		case httpcache.ServeStale:
			s.revalidate(x, e, d, objectKey)
			st.Detail = detail
			fallthrough
		case httpcache.Serve:
			if s.serveEntry(x, e, st, e.Unvalidated()) {
				return
			}
		default:
			switch {
			case directives.OnlyIfCached:
				x.w.Fail(http.StatusGatewayTimeout, httpcache.Status{Detail: "only-if-cached"})
				return
			case x.r.Method == http.MethodHead:
				s.proxy(x, httpcache.Status{Forward: d.Forward, Key: x.key}, e, d)
				return
			case s.follow(x, e, d, objectKey, d.Forward):
				return
			}
		}
	}
	s.pass(x, "miss")
}

// miss answers a request for which nothing is stored.
func (s *Cache) miss(x *exchange, directives httpcache.Directives, objectKey httpcache.Key) bool {
	forward := "uri-miss"
	if objectKey != x.key {
		forward = "vary-miss"
	}
	switch {
	case directives.OnlyIfCached:
		x.w.Fail(http.StatusGatewayTimeout, httpcache.Status{Detail: "only-if-cached"})
	case x.r.Method == http.MethodHead, directives.NoStore:
		s.pass(x, forward)
	default:
		return s.follow(x, nil, httpcache.Decision{}, objectKey, forward)
	}
	return true
}
