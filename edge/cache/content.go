package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// content is where the bytes of a representation come from. It is for one request.
type content interface {
	// open prepares a part that lies in the representation, so that errors occur before the header
	// block is sent. A part of negative length goes to the end of a representation of unknown
	// length.
	open(ctx context.Context, part httpcache.Range) error
	// copyTo sends the part that was opened.
	copyTo(ctx context.Context, w http.ResponseWriter) error
	// close ends the use of the content.
	close()
}

// objectContent is a stored object.
type objectContent struct {
	object *storage.Object
	body   *storage.Reader
}

func (c *objectContent) open(_ context.Context, part httpcache.Range) (err error) {
	c.close()
	c.body, err = c.object.Open(part.Start, part.Length)
	return err
}

func (c *objectContent) copyTo(_ context.Context, w http.ResponseWriter) error {
	if x, ok := w.(*front.Exchange); ok {
		return x.SendBody(c.body)
	}
	_, err := c.body.WriteTo(w)
	return err
}

func (c *objectContent) close() {
	if c.body != nil {
		c.body.Close()
		c.body = nil
	}
}

// flightContent is the body of a flight, which is sent as it arrives.
type flightContent struct {
	flight *flight
	reader *follower
	left   int64 // negative: up to the end
}

func (c *flightContent) open(_ context.Context, part httpcache.Range) error {
	c.close()
	c.reader = c.flight.follow(part.Start - c.flight.first)
	c.left = part.Length
	return nil
}

func (c *flightContent) copyTo(ctx context.Context, w http.ResponseWriter) error {
	if p := c.reader.rest(); p != nil && c.left <= int64(len(p)) {
		if c.left >= 0 {
			p = p[:c.left]
		}
		_, err := w.Write(p)
		return err
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	flush := http.NewResponseController(w)
	if c.reader.caughtUp() { // the header block need not wait for the first bytes
		if err := flush.Flush(); err != nil {
			return err
		}
	}
	for c.left != 0 {
		p := *buf
		if c.left > 0 && c.left < int64(len(p)) {
			p = p[:c.left]
		}
		n, caughtUp, err := c.reader.read(ctx, p)
		if errors.Is(err, io.EOF) && c.left < 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(p[:n]); err != nil {
			return err
		}
		if c.left > 0 {
			c.left -= int64(n)
		}
		if caughtUp { // more may take a while
			if err := flush.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *flightContent) close() {
	if c.reader != nil {
		c.reader.unfollow()
		c.reader = nil
	}
}

// fragmentContent is a representation of which fragments are stored. Missing parts are fetched
// slice by slice, each when it is due to be sent.
type fragmentContent struct {
	server *Cache
	x      *exchange
	key    httpcache.Key // of the response
	response
	// flight, if not nil, is the fetch that the request itself led or joined. Its body is a
	// fragment that is still arriving.
	flight *flight

	want        httpcache.Range // the bytes that are left to send
	piece       content         // sends the first of these
	pieceLength int64           // number of bytes that piece sends
	leave       func()          // leaves the flight of the piece; nil without one

	// gone are the keys of listed fragments that the store no longer has.
	gone map[httpcache.Key]bool

	// ahead is a flight that probe joined before its bytes are due.
	ahead *flight
}

func (c *fragmentContent) open(ctx context.Context, part httpcache.Range) error {
	c.want = part
	return c.next(ctx)
}

// next opens the piece that want begins with.
func (c *fragmentContent) next(ctx context.Context) error {
	c.closePiece()
	if c.want.Length == 0 {
		return nil
	}
	if f := c.flight; f != nil && c.want.Start >= f.first && c.want.Start < f.first+f.length {
		return c.use(ctx, &flightContent{flight: f}, f.first+f.length-c.want.Start)
	}
	for {
		p := httpcache.Plan(c.fragments, c.want)[0]
		if p.Key == "" {
			if err := c.fetch(ctx, p); err != errStored {
				return err
			}
			continue
		}
		if o := c.server.Store.Get(string(p.Key)); o != nil {
			piece := &objectContent{object: o}
			if err := piece.open(ctx, httpcache.Range{Start: p.Start - p.Begin, Length: p.Length}); err == nil {
				c.piece, c.pieceLength = piece, p.Length
				return nil
			}
		}
		// The store no longer has it, so it is missing.
		if c.gone == nil {
			c.gone = map[httpcache.Key]bool{}
		}
		c.gone[p.Key] = true
		c.fragments = c.without(c.fragments)
	}
}

// probe joins or begins the flight of the first missing bytes of a part, if any. It shows whether
// the origin still has the representation.
func (c *fragmentContent) probe(ctx context.Context, part httpcache.Range) error {
	for _, p := range httpcache.Plan(c.fragments, part) {
		if p.Key != "" || c.flight != nil && p.Start >= c.flight.first && p.Start < c.flight.first+c.flight.length {
			continue
		}
		f, err := c.join(ctx, p)
		if err == errStored {
			return c.probe(ctx, part)
		}
		c.ahead = f
		return err
	}
	return nil
}

// errStored means that the missing bytes have been stored meanwhile.
var errStored = errors.New("another request has fetched it")

// without returns the fragments that are not gone.
func (c *fragmentContent) without(fragments []httpcache.Fragment) []httpcache.Fragment {
	if len(c.gone) == 0 {
		return fragments
	}
	return slices.DeleteFunc(slices.Clone(fragments), func(f httpcache.Fragment) bool { return c.gone[f.Key] })
}

// isMissing looks up the stored fragments again, and reports whether the byte at this place is
// missing.
func (c *fragmentContent) isMissing(at int64) bool {
	o := c.server.Store.Get(string(c.key))
	if o == nil || isVariants(o.Data()) {
		return true
	}
	e := c.server.objects.open(o)
	if e == nil || e.size != c.size || e.StrongValidator() != c.StrongValidator() {
		return true
	}
	c.fragments = c.without(e.fragments)
	return httpcache.Plan(c.fragments, httpcache.Range{Start: at, Length: 1})[0].Key == ""
}

// use makes piece, which has length bytes, the next one to send.
func (c *fragmentContent) use(ctx context.Context, piece content, length int64) error {
	c.piece, c.pieceLength = piece, min(length, c.want.Length)
	return piece.open(ctx, httpcache.Range{Start: c.want.Start, Length: c.pieceLength})
}

// fetch takes a missing piece from the flight of its slice.
func (c *fragmentContent) fetch(ctx context.Context, p httpcache.Piece) error {
	f := c.ahead
	c.ahead = nil
	if f == nil || p.Start < f.first || p.Start >= f.first+f.length {
		if f != nil {
			c.server.leave(c.x, f)
		}
		var err error
		if f, err = c.join(ctx, p); err != nil {
			return err
		}
	}
	c.leave = func() { c.server.leave(c.x, f) }
	return c.use(ctx, &flightContent{flight: f}, min(p.Length, f.first+f.length-p.Start))
}

// join joins or begins the flight of the slice that has a missing piece, and waits for its header
// block. If the flight fails because the client that leads it has too many requests, join tries
// again.
func (c *fragmentContent) join(ctx context.Context, p httpcache.Piece) (*flight, error) {
	alone := false
	for range 4 {
		f, leads, err := c.joinOnce(ctx, p, alone)
		if err == nil {
			return f, nil
		}
		if err == errStored || !f.open || !errors.Is(err, origin.ErrShare) {
			return nil, err
		}
		alone = leads
	}
	return nil, origin.ErrShare
}

// joinOnce is join with one attempt. If it returns an error, the request has left the flight. With
// alone, other requests can't join the flight.
func (c *fragmentContent) joinOnce(ctx context.Context, p httpcache.Piece, alone bool) (f *flight, leads bool,
	err error) {
	s, x := c.server, c.x
	x.counts = true
	if !c.isMissing(p.Start) {
		return nil, false, errStored
	}
	slice := s.sliceFor(x, c.fragments, p.Range, c.size)
	stage := x.site.Origin.Stage(string(x.key), x.stage)
	header := storage.Header{Key: string(c.key), URL: x.url(), Epoch: s.Store.Epoch()}
	key := sliceKey{flightKey{c.key, stage}, c.StrongValidator()}
	if alone {
		f, leads = s.flights.alone(key.flightKey, header), true
		f.slice = slice
	} else {
		f, leads = s.flights.joinSlice(key, p.Start, slice, header, x.likelyTags(nil))
	}
	if leads && (f.hold == nil || !c.isMissing(p.Start)) { // it landed meanwhile
		s.flights.drop(f)
		s.leave(x, f)
		return f, leads, errStored
	}
	if leads {
		t := s.newFetch(x, f, &entry{response: c.response}, httpcache.Decision{}, stage)
		t.part, t.meta.fields = true, httpcache.VaryFields(c.Header["Vary"], t.client)
		s.setSlice(t, f.slice, c.size)
		t.options.Accept = t.accepts
		s.start(f, t)
	}
	ph, err := f.outcome(ctx, func(int, http.Header) {})
	if err == nil && ph == failed {
		err = f.failure()
	}
	f.mu.Lock()
	b := f.body
	f.mu.Unlock()
	switch {
	case err != nil:
	case ph == done && b.answer == nil:
		err = errStored
	case b.answer == nil || b.whole != c.size || b.answer.StrongValidator() != c.StrongValidator():
		err = errChanged
		if ph == streaming {
			x.held = append(x.held, f) // the next look-up uses it
			return f, leads, err
		}
	case p.Start < b.first || p.Start >= b.first+b.length:
		err = fmt.Errorf("the origin sent another range than bytes %d-%d", slice.Start, slice.Start+slice.Length-1)
	}
	if err != nil {
		s.leave(x, f)
	}
	return f, leads, err
}

func (c *fragmentContent) copyTo(ctx context.Context, w http.ResponseWriter) error {
	for {
		if err := c.piece.copyTo(ctx, w); err != nil {
			return err
		}
		c.want.Start, c.want.Length = c.want.Start+c.pieceLength, c.want.Length-c.pieceLength
		if c.want.Length == 0 {
			return nil
		}
		if err := c.next(ctx); err != nil {
			return err
		}
	}
}

func (c *fragmentContent) close() {
	c.closePiece()
	if c.ahead != nil {
		c.server.leave(c.x, c.ahead)
		c.ahead = nil
	}
}

func (c *fragmentContent) closePiece() {
	if c.piece != nil {
		c.piece.close()
		c.piece = nil
	}
	if c.leave != nil {
		c.leave()
		c.leave = nil
	}
}

// setRange sets the Range field of a request. A part up to the end of a representation of size
// bytes gets an open range, and a part with a negative start a suffix range (RFC 9110, 14.1.2).
func setRange(h http.Header, part httpcache.Range, size int64) {
	if part.Start < 0 {
		h.Set("Range", "bytes="+strconv.FormatInt(part.Start, 10))
		return
	}
	last := ""
	if part.Start+part.Length != size {
		last = strconv.FormatInt(part.Start+part.Length-1, 10)
	}
	h.Set("Range", "bytes="+strconv.FormatInt(part.Start, 10)+"-"+last)
}
