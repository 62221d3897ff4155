package cache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/storage"
)

// tailSize is how many bytes of a body that can't be stored are kept in memory for its followers.
const tailSize = 1 << 20

// errLost means that the body which followers read ended early.
var errLost = errors.New("the origin's response was cut short")

// errBehind means that the next bytes for a slow follower are no longer kept.
var errBehind = errors.New("client too slow for a response that can't be stored")

// phase is how far a flight is.
type phase int

const (
	fetching  phase = iota // no header block yet
	streaming              // the body is arriving, and followers read it
	done                   // the body is complete; entry is the stored response, or nil
	declined               // the response can't be stored: the leader passes it on, the others fetch for themselves
	failed                 // err says why
)

// flight is one fetch that any number of requests follow. A key has at most one that can be joined.
type flight struct {
	key    flightKey
	header storage.Header // of the object that it may become
	likely likelyTags     // tags that the response will probably have
	open   bool           // requests may join, or could before it landed
	hold   *storage.Hold  // keeps the purges since it began; nil if some are forgotten, so that it must be dropped
	cancel context.CancelFunc
	// slice is the requested part of the representation with this validator. Its length is 0 if all
	// is requested. A negative start counts from the end. flights.mu guards both.
	slice     httpcache.Range
	validator string

	// mu guards what follows. changed is closed at each change; it is nil if nobody waits for one.
	mu        sync.Mutex
	changed   chan struct{}
	phase     phase
	followers int  // requests that have joined and not left
	keep      bool // goes on without followers, like a background validation
	dead      bool // canceled because it had no followers
	err       error
	fwdStatus int            // of the origin's response; 0 without one
	covered   bool           // the response comes from another edge, and a soft purge covers it: it is not stored
	response  *http.Response // at declined, until the leader takes it; nil if there is nothing to pass on
	entry     *entry         // at done
	forLeader bool           // at done: entry is for the leader alone
	interim   []interim      // received so far
	// onInterim is called before the first interim response is added, with mu held; nil means that
	// nothing is called.
	onInterim func()
	// reads is the key of readers for which the fetch counts, if a range was requested. counted is
	// the number of bytes that it counts.
	reads    httpcache.Key
	counted  int64
	received int64 // at fetching: bytes of a small body received so far
	body
}

// body is the body that a flight reads from the origin, from the phase streaming on.
type body struct {
	answer *httpcache.Stored
	// private are the fields that only the client which leads the flight gets, because of
	// private="...".
	private http.Header
	meta    objectMeta // of the object that it becomes
	first   int64      // place of the first byte in the representation
	length  int64      // of the body, -1 if unknown
	whole   int64      // length of the representation, -1 if unknown
	size    int64      // of the body so far
	writer  *storage.Writer
	// unstored means that the rest of the body is not written, because the disk is full or the body
	// is too large. tail then has the last tailSize bytes, and the fetch goes at the pace of the
	// fastest reader.
	unstored bool
	tail     []byte
	readers  map[*follower]struct{} // nil if the body is small
	// small has a body of at most storage.MaxBody bytes, of which the first size have arrived and
	// don't change any more. It is nil for larger bodies.
	small []byte
}

// interim is a 1xx response.
type interim struct {
	status int
	header http.Header
}

// follower reads the body of a flight from off. It is for one goroutine.
type follower struct {
	flight *flight
	off    int64 // guarded by flight.mu
}

// change calls do under the lock, and wakes all waiters.
func (f *flight) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	f.wake()
}

// wake wakes all waiters. The caller holds mu.
func (f *flight) wake() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// nextChange returns a channel that is closed at the next change. The caller holds mu.
func (f *flight) nextChange() <-chan struct{} {
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

// maxInterim bounds the interim responses of one flight that are passed on.
const maxInterim = 8

// outcome waits for the header block or the flight's end. Meanwhile it calls interim for each
// interim response.
func (f *flight) outcome(ctx context.Context, interim func(status int, h http.Header)) (phase, error) {
	for seen := 0; ; {
		f.mu.Lock()
		p, news := f.phase, f.interim[seen:]
		var changed <-chan struct{}
		if p == fetching {
			changed = f.nextChange()
		}
		f.mu.Unlock()
		for _, i := range news {
			interim(i.status, i.header)
		}
		seen += len(news)
		if p != fetching {
			return p, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return p, ctx.Err()
		}
	}
}

// takeResponse gives the leader the response that can't be stored. The leader closes its body.
func (f *flight) takeResponse() *http.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.response
	f.response = nil
	return r
}

// follow returns a follower that reads the body from off, which counts from the body's first byte.
// The caller must call unfollow.
func (f *flight) follow(off int64) *follower {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &follower{flight: f, off: off}
	if f.small == nil {
		f.readers[r] = struct{}{}
	}
	return r
}

func (r *follower) unfollow() {
	if r.flight.small == nil {
		r.flight.change(func() { delete(r.flight.readers, r) })
	}
}

// rest returns the unread bytes of a small body. It returns nil if the body is large or incomplete.
func (r *follower) rest() []byte {
	f := r.flight
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.small == nil || f.phase != done {
		return nil
	}
	return f.small[min(r.off, f.size):]
}

// caughtUp reports whether there is nothing to read now.
func (r *follower) caughtUp() bool {
	r.flight.mu.Lock()
	defer r.flight.mu.Unlock()
	return r.off >= r.flight.size
}

// read waits for the next bytes and returns them. caughtUp means that no more have arrived yet. At
// the end, read returns io.EOF.
func (r *follower) read(ctx context.Context, p []byte) (n int, caughtUp bool, err error) {
	f := r.flight
	for {
		f.mu.Lock()
		switch {
		case r.off < f.size && f.small != nil:
			defer f.mu.Unlock()
			n = copy(p, f.small[r.off:f.size])
			r.off += int64(n)
			return n, r.off == f.size, nil
		case r.off < f.size:
			if f.unstored && r.off >= f.writer.Size() {
				defer f.mu.Unlock()
				begin := f.size - int64(len(f.tail))
				if r.off < begin {
					return 0, false, errBehind
				}
				n = copy(p, f.tail[r.off-begin:])
				r.off += int64(n)
				f.wake()
				return n, r.off == f.size, nil
			}
			off := r.off
			p = p[:min(int64(len(p)), f.size-off)] // the writer may have more, which must not be shown yet
			f.mu.Unlock()
			n, err = f.writer.ReadAt(p, off)
			f.mu.Lock()
			r.off += int64(n)
			caughtUp = r.off == f.size
			f.mu.Unlock()
			return n, caughtUp, err
		case f.phase == done:
			f.mu.Unlock()
			return 0, false, io.EOF
		case f.phase == failed:
			f.mu.Unlock()
			return 0, false, errLost
		}
		changed := f.nextChange()
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, false, ctx.Err()
		}
	}
}

// append adds bytes from the origin. Followers don't see the last bytes of a body of known length
// before fill has stored it. So a client that has a complete response gets a hit if it repeats the
// request.
func (f *flight) append(ctx context.Context, p []byte) error {
	if !f.unstored { // only written by this goroutine
		n, err := f.writer.Write(p)
		if err == nil && f.length >= 0 && f.writer.Size() >= f.length {
			return nil
		}
		f.change(func() {
			f.size += int64(n)
			f.unstored = err != nil
		})
		if err == nil {
			return nil
		}
		p = p[n:]
	}
	for {
		f.mu.Lock()
		fastest := int64(0)
		for r := range f.readers {
			fastest = max(fastest, r.off)
		}
		room := f.size-fastest+int64(len(p)) <= tailSize
		if room {
			f.tail = append(f.tail, p...)
			if n := len(f.tail) - tailSize; n > 0 {
				f.tail = append(f.tail[:0], f.tail[n:]...)
			}
			f.size += int64(len(p))
			f.wake()
		}
		if room {
			f.mu.Unlock()
			return nil
		}
		alone, changed := f.followers == 0, f.nextChange()
		f.mu.Unlock()
		switch {
		case alone:
			return errLost
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// failure returns why a flight has no body to follow.
func (f *flight) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	return errLost
}

// receive makes a response of the origin ready to be stored and passed on (RFC 9111, 3.1). It adds
// Via, and Date if that is missing (RFC 9110, 6.6.1).
func (s *Cache) receive(resp *http.Response, requestTime, responseTime time.Time) *httpcache.Stored {
	h := resp.Header
	s.via(h, resp.ProtoMajor, resp.ProtoMinor)
	if len(h["Date"]) == 0 {
		h.Set("Date", responseTime.UTC().Format(http.TimeFormat))
	}
	answer := &httpcache.Stored{Status: resp.StatusCode, Header: h, RequestTime: requestTime,
		ResponseTime: responseTime}
	answer.VaryByCoding()
	return answer
}
