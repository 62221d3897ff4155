package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
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
	// conditions means that the request has the client's conditions, because the response is for
	// that client alone.
	conditions bool
}

// statusError is a server error of the origin, in place of which a stale response can be served.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("origin answered %d", e.status) }

// errCovered means that another edge has nothing newer than the stored response, because the origin
// fails there too.
var errCovered = errors.New("the origin fails, and another edge only has a response that a soft purge covers")

// errPanic is the error of a fetch that panicked.
var errPanic = errors.New("a fault of the edge itself, which its log tells of")

// errChanged means that the origin sent a part of another representation than the one that is being
// served.
var errChanged = errors.New("the origin's representation changed")

// start runs the flight in a goroutine.
func (s *Cache) start(f *flight, t *fetch) {
	s.flights.begin(t.meta.url)
	s.work.Go(func() {
		defer s.flights.end(t.meta.url)
		defer f.hold.Release()
		began := time.Now()
		if err := s.flySafely(f, t); err != nil {
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
	})
}

// flySafely is fly. It returns errPanic if fly panics.
func (s *Cache) flySafely(f *flight, t *fetch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Panics.Caught("a fetch", p, "key", f.key)
			err = errPanic
		}
	}()
	return s.fly(f, t)
}

// addInterim keeps an interim response for the requests that wait (RFC 9110, 15.2). It ignores 100,
// which the transport itself waits for.
func (f *flight) addInterim(status int, h http.Header) {
	if status == http.StatusContinue {
		return
	}
	f.change(func() {
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
	asked := time.Now()
	resp, covered, err := s.fetch(t.site, t.request, t.options, t.stage)
	if err != nil {
		return err
	}
	s.fetchAnswered(t.site, t.meta.uri, resp.StatusCode)
	r := &received{resp, s.receive(resp, asked, time.Now()), covered, validating}
	erred := ""
	if r.StatusCode >= 500 && !(t.stored != nil && t.staleIfError) { // otherwise the stored response is served
		erred = "an error"
	}
	s.objects.erred.Put(string(t.meta.uri), erred, r.answer.ResponseTime)
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

// copyBuffers are the buffers for copying bodies from origins and to clients.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// fill reads a body into the store, and shows it to all followers. The body is this part of a
// representation of whole bytes.
func (s *Cache) fill(f *flight, t *fetch, r *received, part httpcache.Range, whole int64) error {
	resp, answer := r.Response, r.answer
	defer resp.Body.Close()
	fragment := part.Length != whole
	b := &t.meta
	if len(answer.Header["Vary"]) == 0 && s.objects.variesByCoding(b.uri) {
		answer.Header.Set("Vary", "Accept-Encoding") // some servers omit it on the variant without coding
	}
	b.fields = httpcache.VaryFields(answer.Header["Vary"], t.client)
	b.tags = purge.TagsOf(answer.Header, t.site, t.target)
	private := t.site.Policy.RemoveOwn(answer)
	key := b.key()
	if fragment {
		key = key.Fragment(answer.StrongValidator(), part.Start)
	}
	w := s.Store.Create(b.header(key))
	defer w.Close()
	f.change(func() { s.flights.countLocked(f, max(0, part.Length)) })
	to := body{answer: answer, private: private, meta: *b, first: part.Start, length: part.Length, whole: whole,
		writer: w}
	var small storage.Body
	var size int64
	var err error
	limit := t.site.LargestObject(s.Store)
	if isSmall := part.Length >= 0 && part.Length <= min(limit, storage.MaxBody); isSmall {
		small = storage.NewBody(int(part.Length))
		to.small = small.Bytes()
		size, err = f.readSmall(resp.Body, to)
	} else {
		to.readers = map[*follower]struct{}{}
		f.change(func() { f.phase, f.body = streaming, to })
		size, err = f.readFrom(t.request.Context(), resp.Body, limit)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", f.key.Key, err)
	}
	if part.Length >= 0 && size != part.Length {
		return fmt.Errorf("read %s: %d bytes came, %d were announced", f.key.Key, size, part.Length)
	}
	commit := w.Commit
	if to.small != nil {
		commit = func(tags []string, data []byte) (*storage.Object, error) { return w.CommitBody(small, tags, data) }
	}
	var e *entry
	switch {
	case f.covered: // only for the requests that wait
	case f.unstored:
		s.objects.pass.Put(string(b.uri), "the body outgrew what may be stored, or the disk is full", time.Now())
	case fragment:
		e, err = s.objects.commitFragment(b, commit, answer, httpcache.Fragment{Range: part, Key: key}, whole)
	default:
		e, err = s.objects.commit(b, commit, answer)
	}
	if err != nil {
		s.Log.Warn("a response can't be stored", "key", f.key.Key, "error", err)
	}
	if e == nil && !f.covered {
		s.supersede(t, answer)
	}
	s.flights.land(f)
	f.change(func() {
		if f.phase == fetching { // the header block was not shown yet
			f.body = to
		}
		f.phase, f.entry, f.size = done, e, size
	})
	return nil
}

// showAfter is how long the header block of a small response waits for its body. Most bodies arrive
// in that time, and are sent together with the header block.
const showAfter = 2 * time.Millisecond

// readSmall reads a body of known length into to.small, and returns the number of bytes read. If
// that takes longer than showAfter, followers get the header block and the bytes read so far. They
// don't get the last bytes before fill has stored them.
func (f *flight) readSmall(r io.Reader, to body) (n int64, err error) {
	over := false // guarded by f.mu
	t := time.AfterFunc(showAfter, func() {
		f.change(func() {
			if !over {
				to.size = f.received
				f.phase, f.body = streaming, to
			}
		})
	})
	defer func() {
		t.Stop()
		f.mu.Lock()
		over = true // from here on only fill changes the body
		f.mu.Unlock()
	}()
	var more [1]byte // for a body that is longer than announced
	for n <= to.length {
		p := to.small[n:]
		if len(p) == 0 {
			p = more[:]
		}
		m, err := r.Read(p)
		n += int64(m)
		if m > 0 && n < to.length {
			f.mu.Lock()
			f.received = n
			if f.phase == streaming {
				f.size = n
				f.wake()
			}
			f.mu.Unlock()
		}
		switch err {
		case nil:
		case io.EOF:
			return n, nil
		default:
			return n, err
		}
	}
	return n, nil
}

// readFrom reads a body and returns its size. If the body is longer than limit, the rest is sent to
// followers and not stored.
func (f *flight) readFrom(ctx context.Context, r io.Reader, limit int64) (size int64, err error) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	streams := false
	for {
		n, err := r.Read(*buf)
		if n > 0 {
			if !f.unstored && f.size+int64(n) > limit {
				f.change(func() { f.unstored = true })
			}
			if f.unstored && !streams {
				streams = true
				origin.Stream(r)
			}
			if err := f.append(ctx, (*buf)[:n]); err != nil {
				return 0, err
			}
		}
		switch {
		case err == io.EOF && f.unstored:
			return f.size, nil
		case err == io.EOF:
			return f.writer.Size(), nil
		case err != nil:
			return 0, err
		}
	}
}
