package cache

import (
	"errors"
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// failed answers a request whose fetch failed: with the stale response if that may be used, or else
// with an error.
func (s *Cache) failed(x *exchange, stored *entry, d httpcache.Decision, err error, st httpcache.Status) {
	var answered *statusError
	if stored != nil && (!s.Purger.Trusts() || s.Store.Purged(stored.object.Epoch(), x.url(),
		stored.object.Tags())) {
		d.StaleIfError, d.StaleIfDown = false, false // a purge covers it, or may
	}
	if stored != nil && (d.StaleIfError || d.StaleIfDown && !errors.As(err, &answered)) {
		st.TTL, st.HasTTL, st.Detail = d.TTL, true, staleIfError
		if s.serveEntry(x, stored, st, stored.Unvalidated()) {
			return
		}
	}
	if stored != nil && !errors.As(err, new(*statusError)) && !errors.Is(err, origin.ErrBusy) && clientFault(err) == 0 {
		st.Detail = origin.Reason(err)
		status := http.StatusGatewayTimeout // what must be validated can't be (RFC 9111, 5.2.2.2)
		if x.peer {
			x.w.Header().Set(origin.FailedField, st.Detail)
			if !origin.IsTimeout(err) {
				status = http.StatusBadGateway // the peer may reach the origin another way
			}
		}
		x.w.Fail(status, st)
		return
	}
	s.failUpstream(x, err, st)
}

// staleIfError is the detail in Cache-Status of a stale response served because the origin fails.
const staleIfError = "stale-if-error"

// failUpstream tells the client that the origin failed.
func (s *Cache) failUpstream(x *exchange, err error, st httpcache.Status) {
	if x.r.Context().Err() != nil {
		return // the client left, and the origin is not at fault
	}
	status := http.StatusBadGateway
	switch fault := clientFault(err); {
	case fault != 0:
		status = fault
		if status == http.StatusTooManyRequests {
			x.w.Header().Set("Retry-After", "1")
		}
	case errors.Is(err, origin.ErrBusy):
		status = http.StatusServiceUnavailable
		x.w.Header().Set("Retry-After", "1")
	case origin.IsTimeout(err):
		status = http.StatusGatewayTimeout
	}
	st.Detail = origin.Reason(err)
	var se *statusError
	if errors.As(err, &se) {
		status, st.Detail = se.status, originError
	}
	if x.peer && se == nil {
		x.w.Header().Set(origin.FailedField, st.Detail)
	}
	x.w.Fail(status, st)
}

// clientFault returns the status for an error that is the client's fault, or 0 for other errors.
func clientFault(err error) int {
	switch {
	case errors.Is(err, origin.ErrShare):
		return http.StatusTooManyRequests
	case errors.Is(err, origin.ErrFields):
		return http.StatusRequestHeaderFieldsTooLarge
	case !errors.As(err, new(*origin.RequestError)):
		return 0
	case origin.IsTimeout(err):
		return http.StatusRequestTimeout
	}
	return http.StatusBadRequest
}

// originError is the reason of a failure if the origin itself responded with an error.
const originError = "origin-error"

// fetchFailed records and logs how the fetch of a key failed, unless it is the client's fault. It
// logs each site and reason once per ttlset.TTL, because a server that is down fails all requests.
func (s *Cache) fetchFailed(site *site.Site, key httpcache.Key, url string, err error) {
	if clientFault(err) != 0 {
		return
	}
	now := time.Now()
	f := origin.FailureOf(err, now)
	if errors.As(err, new(*statusError)) {
		f.Reason = originError
	}
	s.failures.set(string(key), f)
	kind := site.Name + " " + f.Reason
	if s.toldFailures.Get(kind, now) != "" {
		return
	}
	s.toldFailures.Put(kind, "told", now)
	attrs := []any{"site", site.Name, "url", url, "reason", f.Reason, "error", f.Error}
	if f.Hint != "" {
		attrs = append(attrs, "hint", f.Hint)
	}
	s.Log.Warn("origin failed; similar failures won't be logged for two minutes", attrs...)
}

// fetchAnswered records the status of the origin's response for a key, if that is an error.
func (s *Cache) fetchAnswered(site *site.Site, key httpcache.Key, status int) {
	s.outages.end(site.Name)
	s.objects.slow.Put(string(key), "", time.Now())
	if status < 500 {
		s.failures.forget(string(key))
		return
	}
	s.failures.set(string(key), origin.Failure{At: time.Now(), Reason: originError,
		Error: (&statusError{status}).Error()})
}
