package cache

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// fetch is the request to an origin that a flight makes.
type fetch struct {
	site    *site.Site
	options origin.FetchOptions
	meta    objectMeta // of what is stored; its fields and tags are known once the answer is
	target  httpcache.Target
	stage   origin.Stage  // where the request goes on
	client  http.Header   // of the request that leads the flight, unchanged
	request *http.Request // to the origin, under the flight's context
	stored  *entry        // to be validated; nil on a miss
	// staleIfError means that stored may be used if the origin fails.
	staleIfError bool
	// part means that one slice of stored is requested, which has to fit the other fragments.
	part bool
	// here means that the goroutine of the request that leads the flight makes the fetch. rest is
	// what that leaves to another goroutine; nil if nothing.
	here bool
	rest func() error
	// conditions means that the request has the client's conditions, because the response is for
	// that client alone.
	conditions bool
}

// statusError is a server error of the origin, in place of which a stale response can be served.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("origin answered %d", e.status) }

// errCovered means that another edge has nothing newer than the stored response, because the origin
// fails there too.
var errCovered = errors.New("the origin fails, and another edge has only a response that was purged softly")

// errPanic is the error of a fetch that panicked.
var errPanic = errors.New("internal error: see the log of the edge")

// errChanged means that the origin sent a part of another representation than the one that is being
// served.
var errChanged = errors.New("the origin's representation changed")

// start runs the flight in a goroutine of its own.
func (s *Cache) start(f *flight, t *fetch) {
	s.flights.begin(t.meta.url)
	s.work.Go(func() {
		began := time.Now()
		s.end(f, t, s.safely(f, func() error { return s.fly(f, t) }), began)
	})
}

// startHere runs the flight in the goroutine of the request that leads it. It returns when the
// flight has landed, or when reading the body would take long: a goroutine of its own does that.
func (s *Cache) startHere(f *flight, t *fetch) {
	t.here = true
	s.flights.begin(t.meta.url)
	s.work.Add(1)
	began := time.Now()
	err := s.safely(f, func() error { return s.fly(f, t) })
	rest := t.rest
	if rest == nil || err != nil {
		defer s.work.Done()
		s.end(f, t, err, began)
		return
	}
	go func() { // ends with the body
		defer s.work.Done()
		s.end(f, t, s.safely(f, rest), began)
	}()
}

// end ends a flight that began at a time.
func (s *Cache) end(f *flight, t *fetch, err error, began time.Time) {
	defer s.flights.end(t.meta.url)
	defer f.hold.Release()
	if err != nil {
		if t.request.Context().Err() == nil { // otherwise no request follows the flight any more
			s.fetchFailed(t.site, t.meta.uri, t.meta.url, err)
			if f.fwdStatus == 0 || errors.As(err, new(*statusError)) {
				// without a status, or with an error status, no client was being sent a body
				s.recordSlowFailure(t.site, t.meta.uri, err, time.Since(began))
			}
		}
		s.flights.land(f)
		f.change(func() {
			f.phase, f.err = failed, err
			s.flights.countLocked(f, f.size)
		})
	}
	if f.phase != declined { // otherwise the leader ends the context
		f.cancel()
	}
}

// safely calls fly, which does a part of a flight. It returns errPanic if fly panics.
func (s *Cache) safely(f *flight, fly func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Panics.Caught("a fetch", p, "key", f.key)
			err = errPanic
		}
	}()
	return fly()
}

// addInterim keeps an interim response for the requests that wait (RFC 9110, 15.2). It ignores 100,
// which the transport itself waits for.
func (f *flight) addInterim(status int, h http.Header) {
	if status == http.StatusContinue {
		return
	}
	f.change(func() {
		if f.onInterim != nil {
			f.onInterim()
			f.onInterim = nil
		}
		if len(f.interim) < maxInterim {
			f.interim = append(f.interim, interim{status, h})
		}
	})
}

// received is the origin's response to a fetch.
type received struct {
	*http.Response
	answer     *httpcache.Stored
	covered    bool // a purge covers it
	validating bool // the request had the validators of the stored response
}

// fly sends the request to the origin and stores the response. When it returns nil, the flight has
// landed.
func (s *Cache) fly(f *flight, t *fetch) error {
	validating := t.stored != nil && !t.part && t.stored.SetValidators(t.request.Header)
	requestTime := time.Now()
	resp, covered, err := s.fetch(t.site, t.request, t.options, t.stage)
	if err != nil {
		return err
	}
	s.fetchAnswered(t.site, t.meta.uri, resp.StatusCode)
	r := &received{resp, s.receive(resp, requestTime, time.Now()), covered, validating}
	failure := ""
	if r.StatusCode >= 500 && !(t.stored != nil && t.staleIfError) { // otherwise the stored response is served
		failure = "an error"
	}
	s.objects.failing.Put(string(t.meta.uri), failure, r.answer.ResponseTime)
	f.change(func() { f.fwdStatus, f.covered = r.StatusCode, covered })
	if landed, err := s.landWithoutObject(f, t, r); landed {
		return err
	}
	return s.landObject(f, t, r)
}

// isServerError reports whether a status lets a stale response be used (RFC 5861, 4).
func isServerError(status int) bool {
	return status == 500 || status == 502 || status == 503 || status == 504
}

// decline hands the response to the leader, if that still follows.
func (s *Cache) decline(f *flight, resp *http.Response) {
	s.flights.land(f)
	f.change(func() {
		f.phase = declined
		if f.followers > 0 {
			f.response = resp
			return
		}
		resp.Body.Close()
		f.cancel()
	})
}

// confirm freshens the stored response with a 304.
func (s *Cache) confirm(f *flight, t *fetch, answer *httpcache.Stored) {
	t.site.Policy.StripCookies(answer.Header)
	updated := t.stored.Update(answer.Header, answer.RequestTime, answer.ResponseTime)
	t.site.Policy.RemoveOwn(updated)
	e := &entry{t.stored.object, t.stored.response}
	e.Stored = updated
	shared, why := t.site.Policy.Storable(t.client, updated)
	switch {
	case !slices.Equal(httpcache.VaryFields(updated.Header["Vary"], t.client),
		httpcache.VaryFields(t.stored.Header["Vary"], t.client)):
		// the stored response may no longer match the requests that select it
		s.forgetURL(t.meta.url, t.stored.object.Key())
		shared = false
	case shared:
		if stored, err := s.objects.update(e, updated, f.header.Epoch,
			purge.TagsOf(updated.Header, t.site, t.target)); err == nil {
			e = stored
		} else {
			s.Log.Warn("a validated response can't be stored again", "key", f.key.Key, "error", err)
		}
	default:
		if len(t.client["Authorization"]) == 0 {
			s.objects.pass.Put(string(t.meta.uri), why, answer.ResponseTime)
		}
		if ok, _ := t.site.Policy.Storable(nil, updated); !ok { // to no request at all
			s.supersede(t, updated)
		}
	}
	s.flights.land(f)
	f.change(func() { f.phase, f.entry, f.forLeader = done, e, !shared })
}

// setSlice makes a fetch request a slice of a representation of size bytes; 0 means unknown. The
// fetch prefers the server that sent the last slice, because others may have another version.
func (s *Cache) setSlice(t *fetch, slice httpcache.Range, size int64) {
	setRange(t.request.Header, slice, size)
	t.options.Prefer = s.flights.readers.get(t.meta.uri).server
}

// fits reports whether a response is of the representation whose fragments are stored.
func (t *fetch) fits(answer *httpcache.Stored, size int64) bool {
	return size == t.stored.size && t.stored.StrongValidator() != "" &&
		answer.StrongValidator() == t.stored.StrongValidator()
}

// accepts reports whether a response to a request for a slice can be used.
func (t *fetch) accepts(resp *http.Response) bool {
	answer := &httpcache.Stored{Status: resp.StatusCode, Header: resp.Header, ResponseTime: time.Now()}
	switch resp.StatusCode {
	case http.StatusOK:
		return t.fits(answer, resp.ContentLength)
	case http.StatusPartialContent:
		_, whole, ok := httpcache.ParseContentRange(resp.Header)
		return ok && t.fits(answer, whole)
	}
	return isServerError(resp.StatusCode)
}

// fillPart is fill for a slice of a representation whose fragments are stored.
func (s *Cache) fillPart(f *flight, t *fetch, r *received) error {
	resp, answer := r.Response, r.answer
	t.site.Policy.StripCookies(answer.Header) // the header goes into the response that all clients get
	part, whole, ok := httpcache.ParseContentRange(answer.Header)
	if shared, _ := t.site.Policy.Storable(t.client, answer); !shared {
		ok = false
	}
	if resp.StatusCode == http.StatusPartialContent && ok && t.fits(answer, whole) {
		s.flights.readers.setServer(t.meta.uri, origin.ServerOf(resp.Body))
		delete(answer.Header, "Content-Range")
		answer.Status = http.StatusOK
		return s.fill(f, t, r, part, whole)
	}
	resp.Body.Close()
	if isServerError(resp.StatusCode) {
		return &statusError{resp.StatusCode}
	}
	// The stored fragments are outdated (RFC 9111, 3.4). The next look-up starts without them.
	s.Store.Forget(string(t.meta.key()))
	return errChanged
}
