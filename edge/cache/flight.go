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

// tailSize is how much of a body that can't be stored is kept for its followers, in bytes.
const tailSize = 1 << 20

// errLost says that a body that followers read came to an end before its end.
var errLost = errors.New("the origin's response was cut short")

// errBehind says that a follower of a body that is not stored is too slow for what is kept of it.
var errBehind = errors.New("client too slow for a response that can't be stored")

// phase is how far a flight is.
type phase int

const (
	fetching  phase = iota // no header block yet
	streaming              // the body comes; followers read along
	done                   // all is there; entry is what is stored, if it is
	declined               // the response can't be stored: the leader passes it on, the others fetch for themselves
	failed                 // err says why
)

// flight is one fetch that any number of requests follow; there is at most one of a key.
type flight struct {
	key    flightKey
	header storage.Header // of the object that it may become
	likely []string       // tags that it will have, as far as that is known before its answer
	open   bool           // it can be joined, or could
	hold   *storage.Hold  // of the purges since it began; nil if some were forgotten before, so that it can't go on
	cancel context.CancelFunc
	// slice is what is asked for, of the representation with this validator; its length is 0 if
	// that is the whole. A negative start counts from the end. Both are guarded by flights.mu.
	slice     httpcache.Range
	validator string

	// mu guards what follows. changed is closed and replaced at each change.
	mu        sync.Mutex
	changed   chan struct{}
	phase     phase
	followers int  // requests that have joined and not left
	keep      bool // goes on without followers: a background validation
	dead      bool // canceled because nobody followed
	err       error
	fwdStatus int            // of the origin's answer; 0 without one
	covered   bool           // the answer is one that a soft purge covers, of another edge: it is not stored
	response  *http.Response // at declined, until the leader takes it; nil if there is nothing to pass on
	entry     *entry         // at done
	forLeader bool           // at done: entry is for nobody else
	interim   []interim      // that came so far
	// reads is the key that the fetch counts for among readers, if a range was asked for, and
	// counted how many bytes it counts.
	reads    httpcache.Key
	counted  int64
	received int64 // at fetching: bytes of a small body that are there
	body
}

// body is what a flight from streaming on reads from the origin.
type body struct {
	answer *httpcache.Stored
	// private are the fields that private="..." leaves to the client that led the flight.
	private http.Header
	meta    objectMeta // what is stored of it
	first   int64      // place of the first byte in the representation
	length  int64      // of the body, -1 if unknown
	whole   int64      // length of the representation, -1 if unknown
	size    int64      // of the body so far
	writer  *storage.Writer
	// unstored says that the rest of the body is not written: the disk is full, or the body outgrew
	// the store. The last tailSize bytes are in tail then, and the fill goes at the pace of the
	// fastest of readers.
	unstored bool
	tail     []byte
	readers  map[*follower]struct{} // nil if the body is small
	// small has a body of at most storage.MaxBody bytes, of which size are there; nil for others.
	// What is there doesn't change.
	small []byte
}

// interim is a 1xx response.
type interim struct {
	status int
	header http.Header
}

// follower reads the body of a flight, from off on. It is for one goroutine.
type follower struct {
	flight *flight
	off    int64 // guarded by flight.mu
}

// change does something under the lock and wakes all that wait.
func (f *flight) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	f.wake()
}

// wake wakes all that wait; the caller holds mu.
func (f *flight) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// maxInterim bounds the interim responses of one flight that are passed on.
const maxInterim = 8

// outcome waits for the header block or the flight's end. It calls interim for each interim
// response on the way.
func (f *flight) outcome(ctx context.Context, interim func(status int, h http.Header)) (phase, error) {
	for seen := 0; ; {
		f.mu.Lock()
		p, changed, news := f.phase, f.changed, f.interim[seen:]
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

// takeResponse gives the leader the response that can't be stored; its body is the leader's to
// close.
func (f *flight) takeResponse() *http.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.response
	f.response = nil
	return r
}

// follow begins to read the body at off, which counts from its own first byte. The caller calls
// unfollow in the end.
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

// rest returns all that is left of a small body that is whole; nil if there is more to wait for.
func (r *follower) rest() []byte {
	f := r.flight
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.small == nil || f.phase != done {
		return nil
	}
	return f.small[min(r.off, f.size):]
}

// caughtUp says that there is nothing to read now.
func (r *follower) caughtUp() bool {
	r.flight.mu.Lock()
	defer r.flight.mu.Unlock()
	return r.off >= r.flight.size
}

// read returns the next bytes, as soon as there are any; caughtUp says that there are no more yet.
// The end is io.EOF.
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
			p = p[:min(int64(len(p)), f.size-off)] // the writer may have more, which is not to be shown yet
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
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, false, ctx.Err()
		}
	}
}

// append adds bytes that came from the origin. The last ones of a body of known length are not
// shown to followers before fill has stored it, so that a client that has a response and asks again
// gets a hit.
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
		alone, changed := f.followers == 0, f.changed
		f.mu.Unlock()
		switch {
		case room:
			return nil
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

// failure is why a flight has no body to follow.
func (f *flight) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	return errLost
}

// receive makes of an origin's answer what may be kept and passed on (RFC 9111, 3.1), with a Date
// (RFC 9110, 6.6.1) and a Via.
func (s *Cache) receive(resp *http.Response, asked, answered time.Time) *httpcache.Stored {
	h := resp.Header
	s.via(h, resp.ProtoMajor, resp.ProtoMinor)
	if len(h["Date"]) == 0 {
		h.Set("Date", answered.UTC().Format(http.TimeFormat))
	}
	answer := &httpcache.Stored{Status: resp.StatusCode, Header: h, RequestTime: asked, ResponseTime: answered}
	answer.VaryByCoding()
	return answer
}
