package cache

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// following is one request that follows a flight.
type following struct {
	x       *exchange
	stored  *entry             // the stored response, or nil
	d       httpcache.Decision // about stored
	forward string             // why the request is not a hit
	header  storage.Header     // of the object that the flight makes
	passes  bool               // the last response of the key could not be stored
	mode    fetchMode

	f     *flight
	leads bool
	// passed is closed when all interim responses have been passed on by a goroutine of their own;
	// nil if none has. flight.mu guards it.
	passed chan struct{}

	// The outcome of the flight.
	st        httpcache.Status
	body      body
	entry     *entry
	err       error
	forLeader bool
}

// follow joins or begins the flight of a key and answers with its outcome. It reports false if the
// request has to be looked up again.
func (s *Cache) follow(x *exchange, stored *entry, d httpcache.Decision, objectKey httpcache.Key, forward string) bool {
	j := &following{x: x, stored: stored, d: d, forward: forward}
	j.header = storage.Header{Key: string(objectKey), URL: x.url(), Epoch: x.epoch}
	j.passes = s.objects.pass.Get(string(x.key), time.Now()) != ""
	stage := origin.ToOrigin // no other edge has a response that can't be stored
	if !j.passes {
		stage = x.site.Origin.Stage(string(x.key), x.stage)
	}
	if !s.join(j, objectKey, stage) {
		x.passed = true
		s.pass(x, forward)
		return true
	}
	if j.leads && s.landedMeanwhile(x, j.f, stored) {
		s.leave(x, j.f)
		return false
	}
	if j.leads && !x.mayFetch() {
		s.flights.drop(j.f)
		s.leave(x, j.f)
		return true
	}
	if j.leads && !s.lead(j, stage) {
		return true // the client left
	}
	defer s.leave(x, j.f)
	p, err := j.await()
	if err != nil {
		return s.unanswered(j, err)
	}
	j.take()
	return s.conclude(j, p)
}

// join joins the flight of a key, or begins it. It reports false if the request is passed through.
func (s *Cache) join(j *following, objectKey httpcache.Key, stage origin.Stage) bool {
	x := j.x
	x.counts = x.r.Header["If-None-Match"] != nil || x.r.Header["If-Modified-Since"] != nil
	slice, m := s.plan(x, j.stored, objectKey, stage)
	j.mode = m
	alone := j.passes || x.alone || s.cannotShare(x, j.stored)
	key := flightKey{objectKey, stage}
	j.leads = true
	switch part := m == fetchSlices; {
	case part && j.passes, m == passThrough:
		return false
	case part && !alone:
		j.f, j.leads = s.flights.joinSlice(sliceKey{key, ""}, slice.Start, slice, j.header, x.likelyTags(j.stored))
	case alone:
		j.f = s.flights.alone(key, j.header)
		j.f.slice = slice
	default:
		j.f, j.leads = s.flights.join(key, j.header, x.likelyTags(j.stored))
	}
	return true
}

// lead starts the flight. It reports false if the client left, and so has left the flight.
func (s *Cache) lead(j *following, stage origin.Stage) bool {
	x, f := j.x, j.f
	t := s.newFetch(x, f, j.stored, j.d, stage)
	if f.slice.Length > 0 {
		size := int64(0)
		if j.stored != nil {
			size = j.stored.size
		}
		s.setSlice(t, f.slice, size)
	} else if j.d.StaleIfDown {
		f.change(func() { f.keep = true }) // later requests use the outcome
	}
	if j.passes && j.stored == nil && f.slice.Length == 0 {
		t.passConditions(x.r.Header)
	}
	if x.serveStaleAfter > 0 { // the request may have to go on before the flight has landed
		s.start(f, t)
		return true
	}
	f.onInterim = func() { s.passInterims(j) }
	stays := context.AfterFunc(x.r.Context(), func() { s.flights.leave(f) })
	s.startHere(f, t)
	f.mu.Lock()
	f.onInterim = nil
	passed := j.passed
	f.mu.Unlock()
	if passed != nil {
		<-passed
	}
	return stays()
}

// passInterims passes interim responses on to the client while its own goroutine makes the fetch,
// which a slow client must not hold up.
func (s *Cache) passInterims(j *following) {
	j.passed = make(chan struct{})
	go func() { // ends with the flight's header block, or when the client leaves
		defer close(j.passed)
		_ = s.safely(j.f, func() error {
			_, err := j.f.outcome(j.x.r.Context(), j.x.interim)
			return err
		})
	}()
}

// await waits for the header block of the flight, or its end.
func (j *following) await() (phase, error) {
	ctx := j.x.r.Context()
	if d := j.x.serveStaleAfter; d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	interim := j.x.interim
	if !j.leads || j.passed != nil {
		interim = func(int, http.Header) {} // the response may be for the leader alone, which has these
	}
	return j.f.outcome(ctx, interim)
}

// unanswered handles a wait that ended without a response: the client left, or the request has
// waited for serveStaleAfter and gets the stored response.
func (s *Cache) unanswered(j *following, err error) bool {
	x := j.x
	if x.r.Context().Err() != nil {
		return true // the client left
	}
	j.f.change(func() { j.f.keep = true }) // for later requests
	if !s.Purger.Trusts() || s.Store.Purged(j.stored.object.Epoch(), x.url(), j.stored.object.Tags()) {
		return false // the stored response may not be used any more
	}
	s.failed(x, j.stored, j.d, err, httpcache.Status{Forward: j.forward, Collapsed: !j.leads, Key: x.key})
	return true
}

// take copies the outcome of the flight.
func (j *following) take() {
	f := j.f
	f.mu.Lock()
	defer f.mu.Unlock()
	j.st = httpcache.Status{Forward: j.forward, FwdStatus: f.fwdStatus, Collapsed: !j.leads, Key: j.x.key}
	j.body, j.entry, j.err, j.forLeader = f.body, f.entry, f.err, f.forLeader
	j.x.covered = f.covered
}

// conclude answers with the outcome of the flight. It reports false if the outcome is not for this
// request.
func (s *Cache) conclude(j *following, p phase) bool {
	switch {
	case p == declined && !j.leads, p == done && j.forLeader && !j.leads, p == done && j.body.answer == nil &&
		j.entry == nil:
		return false
	case p == declined:
		return s.passDeclined(j)
	case p == failed:
		return s.concludeFailed(j)
	case s.isForOthers(j):
		return false
	case j.body.answer != nil:
		return s.serveFollowed(j)
	}
	// A validation: the stored response was confirmed.
	j.st.Stored = !j.forLeader
	if j.leads {
		return s.serveEntry(j.x, j.entry, j.st, nil)
	}
	return s.serveEntry(j.x, j.entry, j.st, j.entry.Unvalidated())
}

// passDeclined passes a response that can't be stored to the client that led the flight.
func (s *Cache) passDeclined(j *following) bool {
	x, f := j.x, j.f
	resp := f.takeResponse()
	if resp == nil {
		return false
	}
	defer f.cancel()
	defer context.AfterFunc(x.r.Context(), f.cancel)() // the origin may be silent for long
	if j.mode == fetchSlices && resp.StatusCode == http.StatusPartialContent && !cutPart(resp, x.r.Header["Range"][0]) {
		resp.Body.Close()
		s.pass(x, j.forward)
		return true
	}
	notModified(x.r, resp)
	s.passOn(x, resp, j.st)
	return true
}

// concludeFailed answers if the fetch failed.
func (s *Cache) concludeFailed(j *following) bool {
	x := j.x
	stale := j.stored != nil && (j.d.StaleIfError || j.d.StaleIfDown)
	switch {
	case j.f.open && errors.Is(j.err, origin.ErrShare):
		x.alone = j.leads
		return false // the leader waits until it may send one more request, and the others don't
	case !j.leads && !x.failedAlong && !stale && origin.MayBeTheRequests(j.err):
		x.failedAlong = true // once, as the failure may be due to the leader's request
		return false
	}
	s.failed(x, j.stored, j.d, j.err, j.st)
	return true
}

// isForOthers reports whether the response is not for this request: a purge before the request
// covers it, by a tag that was unknown when the request joined, or it is a variant that the request
// does not select.
func (s *Cache) isForOthers(j *following) bool {
	x := j.x
	v, tags := httpcache.Variant{Fields: j.body.meta.fields}, j.body.meta.tags
	if j.body.answer != nil {
		v.Language = j.body.answer.Header.Get("Content-Language")
	}
	if j.entry != nil {
		tags = j.entry.object.Tags()
	}
	if j.header.Epoch > j.f.header.Epoch && s.Store.Overtaken(j.f.header.Epoch, x.url(), tags) {
		return true
	}
	if !v.Matches(x.r.Header) && !v.Speaks(x.r.Header) {
		x.variant = x.key.Variant(httpcache.VaryFields(names(v), x.r.Header))
		return true
	}
	return false
}

// serveFollowed sends the body that the flight reads.
func (s *Cache) serveFollowed(j *following) bool {
	j.st.Stored = !j.body.unstored && !j.x.covered
	if !j.leads {
		j.body.private = nil
	}
	if !s.serveFlight(j.x, j.f, j.body, j.st) {
		return false // the request needs bytes that can't be joined to this body
	}
	if j.x.w.Status() == http.StatusNotModified { // the client has the response; others may want it
		s.flights.readers.add(j.x.key, Block, 0)
	}
	return true
}

// likelyTags are the tags that a response will probably have: those of the stored response, or
// those of the host.
type likelyTags struct {
	stored *storage.Object // nil if there is none
	site   *site.Site
	target httpcache.Target
}

// likelyTags returns the tags that the response to a request will probably have.
func (x *exchange) likelyTags(stored *entry) likelyTags {
	if stored != nil {
		return likelyTags{stored: stored.object}
	}
	return likelyTags{site: x.site, target: x.target}
}

// all returns the tags.
func (l *likelyTags) all() []string {
	if l.stored != nil {
		return l.stored.Tags()
	}
	return purge.TagsOf(nil, l.site, l.target)
}

// cannotShare reports whether others who ask for the same are not to wait for what comes of a
// request, as each of them will need an answer of its own: the request has credentials and nothing
// is stored that shows that these don't matter, or the last answer was an error. They would wait
// one after the other.
func (s *Cache) cannotShare(x *exchange, stored *entry) bool {
	return len(x.r.Header["Authorization"]) > 0 && stored == nil ||
		s.objects.failing.Get(string(x.key), time.Now()) != ""
}

// interim passes on a 1xx response (RFC 9110, 15.2).
func (x *exchange) interim(status int, h http.Header) {
	if !x.r.ProtoAtLeast(1, 1) {
		return
	}
	to := x.w.Header()
	for name, lines := range h {
		to[name] = lines
	}
	x.w.WriteHeader(status)
	for name := range h {
		delete(to, name)
	}
}

// landedMeanwhile drops a new flight if another flight of its key landed between the look-up and
// the join, so that the origin gets one request only. It also drops the flight if the store has
// forgotten purges made since the look-up.
func (s *Cache) landedMeanwhile(x *exchange, f *flight, stored *entry) bool {
	e, _ := s.objects.find(x.key, x.r.Header)
	if f.hold != nil && (e == nil || e.object.Stale || stored != nil && !e.object.Newer(stored.object) || e.size >= 0 &&
		!e.covers(x.r)) {
		return false
	}
	s.flights.drop(f)
	return true
}

// revalidate validates e in the background.
func (s *Cache) revalidate(x *exchange, e *entry, d httpcache.Decision, objectKey httpcache.Key) {
	stage := x.site.Origin.Stage(string(x.key), x.stage)
	header := storage.Header{Key: string(objectKey), URL: x.url(), Epoch: x.epoch}
	f, leads := s.flights.join(flightKey{objectKey, stage}, header, x.likelyTags(e))
	defer s.flights.leave(f)
	if leads && !s.landedMeanwhile(x, f, e) {
		f.change(func() { f.keep = true })
		d.StaleIfError = true // no client waits for an error
		t := s.newFetch(x, f, e, d, stage)
		if slice, m := s.plan(x, e, "", stage); m == fetchSlices {
			s.setSlice(t, slice, e.size)
		}
		s.start(f, t)
	}
}

// newFetch makes the fetch of f, and sets f.cancel. The fetch does not end with the client's
// request, because others may follow it.
func (s *Cache) newFetch(x *exchange, f *flight, stored *entry, d httpcache.Decision, stage origin.Stage) *fetch {
	ctx, cancel := context.WithCancel(s.base)
	f.mu.Lock()
	f.cancel = cancel
	if x.counts {
		f.reads = x.key
		s.flights.countLocked(f, f.slice.Length)
	}
	f.mu.Unlock()
	out := &http.Request{Method: http.MethodGet, URL: x.target.RequestURL(), Host: x.target.Authority(),
		Header: x.r.Header.Clone(),
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	httpcache.RemoveConditions(out.Header)
	s.setForwarded(out.Header, x)
	if stage != origin.ToOrigin && s.objects.changed.Get(x.url(), time.Now()) != "" {
		out.Header.Add("Cache-Control", "no-cache")
	}
	return &fetch{site: x.site, options: origin.FetchOptions{Key: string(x.key), Mark: x.mark,
		Origin: x.site.OriginName,
		Client: x.network(), Shared: f.open, Interim: f.addInterim},
		meta: x.objectMeta(f.header.Epoch), target: x.target, stage: stage, client: x.r.Header,
		request: out.WithContext(ctx), stored: stored, staleIfError: d.StaleIfError}
}
