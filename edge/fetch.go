package edge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// fetch is what a flight asks of an origin.
type fetch struct {
	site    *Site
	key     string        // of the URI, without variant
	host    string        // canonical
	client  http.Header   // of the request that leads the flight, as it came
	request *http.Request // to the origin: a GET without conditions, under the flight's context
	have    *entry        // to be validated; nil on a miss
	// staleIfError is whether have may be used if the origin fails.
	staleIfError bool
}

// statusError is a server error in place of which there is a stale response.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("origin answered %d", e.status) }

// start flies f in a goroutine of the server's.
func (s *Server) start(f *flight, t *fetch) {
	s.work.Go(func() {
		if err := s.fly(f, t); err != nil {
			s.flights.land(f)
			f.change(func() { f.phase, f.err = failed, err })
		}
		if f.phase != declined { // else the context is the leader's to end
			f.cancel()
		}
	})
}

// fly asks the origin and stores what comes. The flight has landed when it returns nil.
func (s *Server) fly(f *flight, t *fetch) error {
	validating := t.have != nil && t.have.stored.SetValidators(t.request.Header)
	asked := time.Now()
	resp, err := t.site.Origin.RoundTrip(t.request)
	if err != nil {
		return err
	}
	answer := receive(resp, asked, time.Now())
	f.change(func() { f.fwdStatus = resp.StatusCode })
	switch {
	case validating && resp.StatusCode == http.StatusNotModified:
		resp.Body.Close()
		if t.have.stored.Confirms(answer.Header) {
			s.confirm(f, t, answer)
			return nil
		}
		// It speaks of another response than it was asked about: ask for the whole one (RFC 9111, 4.3.4).
		t.have = nil
		httpcache.RemoveConditions(t.request.Header)
		return s.fly(f, t)
	case t.have != nil && t.staleIfError && isServerError(resp.StatusCode):
		resp.Body.Close()
		return &statusError{resp.StatusCode}
	}
	storable, _ := t.site.Policy.Storable(t.client, answer)
	s.cache.setPass(f.key, !storable, answer.ResponseTime)
	if !storable || resp.ContentLength > t.site.maxObject(s.Store) {
		s.decline(f, resp)
		return nil
	}
	defer resp.Body.Close()
	return s.fill(f, t, resp, answer)
}

// isServerError says whether a status lets a stale response be used (RFC 5861, 4).
func isServerError(status int) bool {
	return status == 500 || status == 502 || status == 503 || status == 504
}

// decline leaves the response to the leader, if that still follows.
func (s *Server) decline(f *flight, resp *http.Response) {
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
func (s *Server) confirm(f *flight, t *fetch, answer *httpcache.Stored) {
	tags := t.have.object.Tags()
	if given := tagsOf(answer.Header, t.host); len(given) > 1 {
		tags = given
	}
	removeTags(answer.Header)
	updated := t.have.stored.Update(answer.Header, answer.RequestTime, answer.ResponseTime)
	updated.RemovePrivate()
	e := &entry{t.have.object, updated}
	if ok, _ := t.site.Policy.Storable(t.client, updated); ok {
		if stored, err := s.cache.update(e, updated, f.header.Epoch, tags); err == nil {
			e = stored
		} else {
			s.Log.Warn("a validated response can't be stored again", "key", f.key, "error", err)
		}
	}
	s.flights.land(f)
	f.change(func() { f.phase, f.entry = done, e })
}

// copyBuffers are what bodies are read into on their way, from origins and to clients.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// fill reads the body to the store, and to all that follow.
func (s *Server) fill(f *flight, t *fetch, resp *http.Response, answer *httpcache.Stored) error {
	h := f.header
	h.Key = t.key
	fields := httpcache.VaryFields(answer.Header["Vary"], t.client)
	if len(fields) > 0 {
		h.Key = variantKey(t.key, fields)
	}
	tags := tagsOf(answer.Header, t.host)
	removeTags(answer.Header)
	answer.RemovePrivate()
	w := s.Store.Create(h)
	f.change(func() {
		f.phase = streaming
		f.body = body{stored: answer, fields: fields, tags: tags, length: resp.ContentLength, writer: w,
			readers: map[*follower]struct{}{}}
	})

	if err := f.readFrom(t.request.Context(), resp.Body, t.site.maxObject(s.Store)); err != nil {
		return fmt.Errorf("read %s: %w", f.key, err)
	}
	var e *entry
	if !f.unstored {
		var err error
		if e, err = s.cache.commit(t.key, w, fields, answer, tags, h); err != nil {
			s.Log.Warn("a response can't be stored", "key", f.key, "error", err)
		}
	} else {
		s.cache.setPass(f.key, true, time.Now())
	}
	s.flights.land(f)
	f.change(func() { f.phase, f.entry = done, e })
	return nil
}

func (f *flight) readFrom(ctx context.Context, r io.Reader, limit int64) error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := r.Read(*buf)
		if n > 0 {
			if !f.unstored && f.size+int64(n) > limit {
				f.change(func() { f.unstored = true })
			}
			if err := f.append(ctx, (*buf)[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func removeTags(h http.Header) {
	for _, name := range tagFields {
		delete(h, name)
	}
}
