package cache

import (
	"fmt"
	"net/http"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
)

// landWithoutObject ends the flight if the response does not make a new object: it is a slice, it
// confirms the stored response, or the stale response is served in its place. It reports whether
// the flight has ended.
func (s *Cache) landWithoutObject(f *flight, t *fetch, r *received) (landed bool, err error) {
	switch {
	case r.StatusCode < 200:
		r.Body.Close()
		return true, fmt.Errorf("the origin switched to %q, but the request has no Upgrade", r.Header.Get("Upgrade"))
	case r.covered && t.stored != nil && t.staleIfError && !t.part:
		r.Body.Close()
		return true, errCovered
	case t.part && r.StatusCode != http.StatusOK:
		return true, s.fillPart(f, t, r)
	case t.part:
		if !t.fits(r.answer, r.ContentLength) {
			s.Store.Forget(string(t.meta.key())) // the stored fragments are outdated (RFC 9111, 3.4)
		}
	case r.validating && r.StatusCode == http.StatusNotModified:
		r.Body.Close()
		if !r.covered && t.stored.Confirms(r.answer.Header) {
			s.confirm(f, t, r.answer)
			return true, nil
		}
		// The 304 is about another response than the stored one: request the whole response (RFC
		// 9111, 4.3.4).
		t.stored = nil
		httpcache.RemoveConditions(t.request.Header)
		return true, s.fly(f, t)
	case t.stored != nil && t.staleIfError && isServerError(r.StatusCode):
		r.Body.Close()
		return true, &statusError{r.StatusCode}
	}
	return false, nil
}

// landObject stores the response, or hands it to the client that leads the flight if it can't be
// stored.
func (s *Cache) landObject(f *flight, t *fetch, r *received) error {
	uri, at := t.meta.uri, r.answer.ResponseTime
	ranged, partial := len(t.request.Header["Range"]) > 0, r.StatusCode == http.StatusPartialContent
	ofRange := ranged && !partial && r.StatusCode != http.StatusOK
	storable, why := t.storable(r.answer)
	switch {
	case partial && !ranged:
		storable, why = false, "a 206 without a Range in the request (RFC 9110, 15.3.7)"
	case storable && ofRange:
		storable, why = false, "a range that only this request asked for"
	}
	part, whole := httpcache.Range{Length: r.ContentLength}, r.ContentLength
	if partial && storable {
		part, whole, _ = httpcache.ParseContentRange(r.answer.Header)
		s.flights.readers.setServer(uri, origin.ServerOf(r.Body))
	}
	if limit := t.site.LargestObject(s.Store); storable && r.ContentLength > limit {
		storable, why = false, fmt.Sprintf("larger than the limit of %d bytes", limit)
	}
	if len(t.client["Authorization"]) == 0 && r.StatusCode < 500 && !ofRange {
		// otherwise the next response may well be storable
		s.objects.pass.Put(string(uri), why, at)
	}
	if !storable {
		return s.landUnstored(f, t, r)
	}
	if t.site.Policy.SetCookie == httpcache.StripSetCookie {
		delete(r.answer.Header, "Set-Cookie")
	}
	if ranged && r.StatusCode == http.StatusOK {
		s.objects.noRange.Put(string(uri), "the origin ignores Range", at)
		s.flights.whole(f)
	}
	if partial {
		if part.Length != whole && r.answer.StrongValidator() == "" {
			s.flights.readers.cantJoin(uri, whole, at)
		}
		delete(r.answer.Header, "Content-Range")
		r.answer.Status = http.StatusOK
	}
	return s.fill(f, t, r, part, whole)
}

// landUnstored hands a response that can't be stored to the client that leads the flight.
func (s *Cache) landUnstored(f *flight, t *fetch, r *received) error {
	s.supersede(t, r.answer)
	if !origin.Stream(r.Body) {
		r.Body.Close()
		return fmt.Errorf("%w: too many slow clients of responses that can't be stored", origin.ErrBusy)
	}
	s.decline(f, r.Response)
	return nil
}
