package cache

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// copyBuffers are the buffers for copying bodies from origins and to clients.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// fill reads a body into the store, and shows it to all followers. The body is this part of a
// representation of whole bytes. If the goroutine of the leader would have to wait long for it,
// fill leaves that to t.rest.
func (s *Cache) fill(f *flight, t *fetch, r *received, part httpcache.Range, whole int64) error {
	isSmall := part.Length >= 0 && part.Length <= min(t.site.LargestObject(s.Store), storage.MaxBody)
	arrived := isSmall && origin.Arrived(r.Body, part.Length, showAfter)
	read := func() error {
		return s.read(f, t, r, filling{part: part, whole: whole, isSmall: isSmall, arrived: arrived})
	}
	if t.here && !arrived {
		t.rest = read
		return nil
	}
	return read()
}

// filling is what is known of a body before it is read.
type filling struct {
	part  httpcache.Range // of a representation of whole bytes
	whole int64
	// isSmall means that the body is kept in memory until it is stored. arrived means that reading
	// it takes no time.
	isSmall, arrived bool
}

// read is fill without the choice of the goroutine.
func (s *Cache) read(f *flight, t *fetch, r *received, of filling) error {
	resp, answer, part := r.Response, r.answer, of.part
	defer resp.Body.Close()
	fragment := part.Length != of.whole
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
	to := body{answer: answer, private: private, meta: *b, first: part.Start, length: part.Length, whole: of.whole,
		writer: w}
	var small storage.Body
	var size int64
	var err error
	if of.isSmall {
		small = storage.NewBody(int(part.Length))
		to.small = small.Bytes()
		size, err = f.readSmall(resp.Body, to, of.arrived)
	} else {
		to.readers = map[*follower]struct{}{}
		f.change(func() { f.phase, f.body = streaming, to })
		size, err = f.readFrom(t.request.Context(), resp.Body, t.site.LargestObject(s.Store))
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", f.key.Key, err)
	}
	if part.Length >= 0 && size != part.Length {
		return fmt.Errorf("read %s: received %d bytes of %d", f.key.Key, size, part.Length)
	}
	commit := w.Commit
	if to.small != nil {
		commit = func(tags []string, data []byte) (*storage.Object, error) { return w.CommitBody(small, tags, data) }
	}
	var e *entry
	switch {
	case f.covered: // only for the requests that wait
	case f.unstored:
		s.objects.pass.Put(string(b.uri), "the body is too large to be stored, or the disk is full", time.Now())
	case fragment:
		e, err = s.objects.commitFragment(b, commit, answer, httpcache.Fragment{Range: part, Key: key}, of.whole)
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
// don't get the last bytes before fill has stored them. arrived means that it takes no time.
func (f *flight) readSmall(r io.Reader, to body, arrived bool) (n int64, err error) {
	if !arrived {
		defer f.showLater(to)()
	}
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

// showLater shows the header block of a small body after a while, unless the caller calls stop
// before that. After stop, only the caller changes the body.
func (f *flight) showLater(to body) (stop func()) {
	over := false // guarded by f.mu
	t := time.AfterFunc(showAfter, func() {
		f.change(func() {
			if !over {
				to.size = f.received
				f.phase, f.body = streaming, to
			}
		})
	})
	return func() {
		t.Stop()
		f.mu.Lock()
		over = true
		f.mu.Unlock()
	}
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
