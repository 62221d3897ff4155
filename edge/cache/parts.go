package cache

import (
	"cmp"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
)

// fetchMode says how to fetch missing bytes.
type fetchMode int

const (
	fetchWhole  fetchMode = iota
	fetchSlices           // one slice at a time
	passThrough           // pass the request through, and store nothing
)

// noSize stands for an unknown size. Even half of it is larger than any representation.
const noSize = int64(1) << 60

// plan decides how to fetch for a request whose response is not stored, or is stored in fragments,
// and which slice to fetch. A slice that counts from the end has a negative start.
func (s *Cache) plan(x *exchange, stored *entry, objectKey httpcache.Key, stage origin.Stage) (slice httpcache.Range,
	m fetchMode) {
	now, field := time.Now(), x.r.Header["Range"]
	if len(field) != 1 || stored != nil && stored.size < 0 || s.objects.noRange.Get(string(x.key), now) != "" {
		return slice, fetchWhole
	}
	limit := int64(0)
	if stored != nil {
		limit = stored.size
	}
	r := s.flights.readers.get(x.key)
	size := cmp.Or(limit, r.unjoinable(now), noSize)
	ranges, ok := httpcache.ParseRanges(field[0], size)
	if !ok {
		return slice, fetchWhole
	}
	x.counts = true
	if limit == 0 && size != noSize {
		return slice, s.planUnjoinable(x, r, ranges, size, flightKey{objectKey, stage})
	}
	if len(ranges) == 0 {
		return slice, fetchWhole
	}
	want := ranges[0]
	if size == noSize && want.Start >= noSize/2 { // it counts from the end
		if want.Length <= x.site.SliceSize() {
			slice = httpcache.Range{Start: -want.Length, Length: want.Length}
		} else {
			want = httpcache.Range{Start: 0, Length: 1} // the response tells the size
		}
	}
	if slice.Length == 0 {
		slice = s.sliceFor(x, nil, want, limit)
	}
	if s.flights.reaches(flightKey{objectKey, stage}, slice.Start, x.site.SliceSize()) {
		return httpcache.Range{}, fetchWhole
	}
	return slice, fetchSlices
}

// planUnjoinable is plan for a representation whose parts can't be joined. Such a representation is
// fetched whole if clients have read enough of it to pay for that, and this client need not wait
// long.
func (s *Cache) planUnjoinable(x *exchange, r reads, ranges []httpcache.Range, size int64, key flightKey) fetchMode {
	if len(ranges) == 0 {
		return passThrough
	}
	near, start := x.site.SliceSize(), ranges[0].Start
	if s.flights.reaches(key, start, near) {
		return fetchWhole
	}
	for _, part := range ranges {
		r.sent += part.Length
	}
	if start <= near && r.earned() >= size {
		return fetchWhole
	}
	return passThrough
}

// sliceFor returns the slice to request if want is missing from a representation with these stored
// fragments. limit is the size of the representation; 0 means unknown.
func (s *Cache) sliceFor(x *exchange, fragments []httpcache.Fragment, want httpcache.Range,
	limit int64) httpcache.Range {
	slice := x.site.SliceSize()
	want.Length = min(want.Length, slice)
	if !x.peer {
		if toEnd(x.r.Header) {
			want.Length = min(want.Length, openLength)
		}
		s.account(x)
		earned := s.flights.readers.get(x.key).earned()
		want.Length = min(want.Length+max(0, earned), slice)
	}
	return httpcache.Slice(fragments, want, min(Block, slice), slice, limit)
}

// toEnd reports whether a range extends to the end. Then it doesn't show how much the client is
// going to read.
func toEnd(h http.Header) bool {
	field := h["Range"]
	if len(field) != 1 {
		return true
	}
	ranges, ok := httpcache.ParseRanges(field[0], noSize)
	for _, part := range ranges {
		if part.Start < noSize/2 && part.Start+part.Length == noSize {
			return true
		}
	}
	return !ok
}

// account counts the bytes that a client was sent, if they count for the object.
func (s *Cache) account(x *exchange) {
	n := x.w.Sent() - x.accounted
	if !x.counts || n == 0 {
		return
	}
	x.accounted += n
	fetched := int64(0)
	if x.passed {
		fetched = n
	}
	s.flights.readers.add(x.key, n, fetched)
}

// leave makes a request leave a flight, and counts what the client was sent.
func (s *Cache) leave(x *exchange, f *flight) {
	s.account(x)
	s.flights.leave(f)
}

// release makes a request leave the flights that it holds, and counts what the client was sent.
func (s *Cache) release(x *exchange) {
	s.account(x)
	for _, f := range x.held {
		s.flights.leave(f)
	}
	x.held = nil
}

// cutPart cuts a slice that can't be stored to the part that the request is for. It reports false
// if the slice doesn't have all of that part.
func cutPart(resp *http.Response, field string) bool {
	got, size, ok := httpcache.ParseContentRange(resp.Header)
	if !ok {
		return false
	}
	ranges, ok := httpcache.ParseRanges(field, size)
	if !ok || len(ranges) != 1 {
		return false
	}
	want := ranges[0]
	skip := want.Start - got.Start
	if skip < 0 || skip+want.Length > got.Length {
		return false
	}
	if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
		return false
	}
	resp.Header.Set("Content-Range", contentRange(want, size))
	resp.Header.Set("Content-Length", strconv.FormatInt(want.Length, 10))
	resp.ContentLength = want.Length
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, want.Length), resp.Body}
	return true
}
