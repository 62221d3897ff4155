package cache

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// follow joins or begins the flight of a key and answers with its outcome. It reports false if the
// request has to be looked up again.
func (s *Cache) follow(x *exchange, have *entry, d httpcache.Decision, own httpcache.Key, forward string) bool {
	header := storage.Header{Key: string(own), URL: x.target.URL(), Epoch: x.epoch}
	passes := s.objects.pass.Get(string(x.key), time.Now()) != ""
	stage := origin.ToOrigin // nobody else has what can't be stored
	if !passes {
		stage = x.site.Origin.Stage(string(x.key), x.came)
	}
	x.counts = x.r.Header["If-None-Match"] != nil || x.r.Header["If-Modified-Since"] != nil
	slice, m := s.plan(x, have, own, stage)
	alone := passes || x.alone || s.cannotShare(x, have)
	key := flightKey{own, stage}
	var f *flight
	leads := true
	switch part := m == asSlice; {
	case part && passes, m == asAsked:
		x.asAsked = true
		s.pass(x, forward)
		return true
	case part && !alone:
		f, leads = s.flights.joinSlice(sliceKey{key, ""}, slice.Start, slice, header, x.likelyTags(have))
	case alone:
		f = s.flights.alone(key, header) // nobody else waits for it
		f.slice = slice
	default:
		f, leads = s.flights.join(key, header, x.likelyTags(have))
	}
	defer s.leave(x, f)
	if leads && s.landedMeanwhile(x, f, have) {
		return false
	}
	if leads {
		t := s.newFetch(x, f, have, d, stage)
		if f.slice.Length > 0 {
			size := int64(0)
			if have != nil {
				size = have.size
			}
			s.setSlice(t, f.slice, size)
		} else if d.StaleIfDown {
			f.change(func() { f.keep = true }) // how it ends is worth knowing for those who come next
		}
		if passes && have == nil && f.slice.Length == 0 {
			t.passConditions(x.r.Header)
		}
		s.start(f, t)
	}
	ctx := x.r.Context()
	if x.hasty {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ServeStaleAfter)
		defer cancel()
	}
	interim := x.interim
	if !leads {
		interim = func(int, http.Header) {} // it is of a response that may be for the leader alone
	}
	p, err := f.outcome(ctx, interim)
	if err != nil {
		if x.r.Context().Err() == nil {
			f.change(func() { f.keep = true }) // for those who come next
			if !s.Purger.Trusts() || s.Store.Purged(have.object.Epoch(), x.target.URL(), have.object.Tags()) {
				return false // what is stored won't do any more
			}
			s.failed(x, have, d, err, httpcache.Status{Forward: forward, Collapsed: !leads, Key: x.key})
		}
		return true // the client left
	}
	f.mu.Lock()
	st := httpcache.Status{Forward: forward, FwdStatus: f.fwdStatus, Collapsed: !leads, Key: x.key}
	b, e, ferr, forLeader := f.body, f.entry, f.err, f.forLeader
	x.covered = f.covered
	f.mu.Unlock()
	v, tags := httpcache.Variant{Fields: b.born.fields}, b.born.tags
	if b.stored != nil {
		v.Language = b.stored.Header.Get("Content-Language")
	}
	if e != nil {
		tags = e.object.Tags()
	}
	switch {
	case p == declined && !leads, p == done && forLeader && !leads, p == done && b.stored == nil && e == nil:
		return false // nothing came of it for this request
	case p == declined:
		resp := f.takeResponse()
		if resp == nil {
			return false
		}
		defer f.cancel()
		defer context.AfterFunc(x.r.Context(), f.cancel)() // the origin may say nothing more for long
		if m == asSlice && resp.StatusCode == http.StatusPartialContent && !cutPart(resp, x.r.Header["Range"][0]) {
			resp.Body.Close()
			s.pass(x, forward)
			return true
		}
		notModified(x.r, resp)
		s.passOn(x, resp, st)
		return true
	case p == failed && f.open && errors.Is(ferr, origin.ErrShare):
		x.alone = leads
		return false // the leader waits for its share, and the others don't
	case p == failed && !leads && !x.failedAlong && !(have != nil && (d.StaleIfError || d.StaleIfDown)) && origin.MayBeTheRequests(ferr):
		x.failedAlong = true // once: the leader's request may be what the origin can't take
		return false
	case p == failed:
		s.failed(x, have, d, ferr, st)
		return true
	case header.Epoch > f.header.Epoch && s.Store.Overtaken(f.header.Epoch, x.target.URL(), tags):
		return false // purged before this request came, by a tag that nobody knew when it joined
	case !v.Matches(x.r.Header) && !v.Speaks(x.r.Header):
		x.variant = x.key.Variant(httpcache.VaryFields(names(v), x.r.Header))
		return false
	case b.stored != nil:
		st.Stored = !b.unstored && !x.covered
		if !leads {
			b.private = nil
		}
		if !s.serveFlight(x, f, b, st) {
			return false // it needs more than can be joined to this
		}
		if x.w.Status() == http.StatusNotModified { // the client has it already; others may want it
			s.flights.readers.add(x.key, Block, 0)
		}
		return true
	}
	// A validation: the stored response was confirmed.
	st.Stored = !forLeader
	if leads {
		return s.serveEntry(x, e, st, nil)
	}
	return s.serveEntry(x, e, st, e.Unvalidated())
}

// likelyTags are the tags that the answer to a request will have, as far as that is known: those of
// what is to be validated, or of its host.
func (x *exchange) likelyTags(have *entry) []string {
	if have != nil {
		return have.object.Tags()
	}
	return purge.TagsOf(http.Header{}, x.site, x.target)
}

// cannotShare reports whether others who ask for the same are not to wait for what comes of a
// request, as each of them will need an answer of its own: the request has credentials and nothing
// is stored that shows that these don't matter, or the last answer was an error. They would wait
// one after the other.
func (s *Cache) cannotShare(x *exchange, have *entry) bool {
	return len(x.r.Header["Authorization"]) > 0 && have == nil || s.objects.erred.Get(string(x.key), time.Now()) != ""
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

// landedMeanwhile ends a new flight at once if another one of its key landed between the look-up
// and the join, so that an origin is asked only once, or if purges since the look-up are forgotten.
func (s *Cache) landedMeanwhile(x *exchange, f *flight, have *entry) bool {
	e, _ := s.objects.find(x.key, x.r.Header)
	if f.hold != nil && (e == nil || e.object.Stale || have != nil && !e.object.Newer(have.object) || e.size >= 0 && !e.covers(x.r)) {
		return false
	}
	s.flights.drop(f)
	return true
}

// revalidate validates e in the background.
func (s *Cache) revalidate(x *exchange, e *entry, d httpcache.Decision, own httpcache.Key) {
	stage := x.site.Origin.Stage(string(x.key), x.came)
	header := storage.Header{Key: string(own), URL: x.target.URL(), Epoch: x.epoch}
	f, leads := s.flights.join(flightKey{own, stage}, header, x.likelyTags(e))
	defer s.flights.leave(f)
	if leads && !s.landedMeanwhile(x, f, e) {
		f.change(func() { f.keep = true })
		d.StaleIfError = true // there is nobody to show an error to
		t := s.newFetch(x, f, e, d, stage)
		if slice, m := s.plan(x, e, "", stage); m == asSlice {
			s.setSlice(t, slice, e.size)
		}
		s.start(f, t)
	}
}

// newFetch makes what f asks the origin, and gives f its end. It does not end with the client's
// request, as others may follow.
func (s *Cache) newFetch(x *exchange, f *flight, have *entry, d httpcache.Decision, stage origin.Stage) *fetch {
	ctx, cancel := context.WithCancel(s.base)
	f.mu.Lock()
	f.cancel = cancel
	if x.counts {
		f.reads = x.key
		s.flights.countLocked(f, f.slice.Length)
	}
	f.mu.Unlock()
	out := &http.Request{Method: http.MethodGet, URL: x.target.RequestURL(), Host: x.target.Authority(), Header: x.r.Header.Clone(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	httpcache.RemoveConditions(out.Header)
	s.setForwarded(out.Header, x)
	if stage != origin.ToOrigin && s.objects.changed.Get(x.target.URL(), time.Now()) != "" {
		out.Header.Add("Cache-Control", "no-cache")
	}
	return &fetch{site: x.site, ask: origin.Ask{Key: string(x.key), Client: x.network(), Shared: f.open}, born: x.born(f.header.Epoch), target: x.target, stage: stage, client: x.r.Header,
		request: out.WithContext(f.trace(ctx)), have: have, staleIfError: d.StaleIfError}
}
