package edge

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
)

// partWanted returns the slice to ask an origin for when the request is for a range of what is not stored, or in fragments.
func (s *Server) partWanted(x *exchange, have *entry, own httpcache.Key, stage origin.Stage) (slice httpcache.Range, ok bool) {
	field := x.r.Header["Range"]
	if len(field) != 1 || have != nil && have.size < 0 || s.cache.noRange.get(string(x.key), time.Now()) != "" {
		return slice, false
	}
	size := int64(1) << 60 // if it isn't known
	if have != nil {
		size = have.size
	}
	ranges, ok := httpcache.ParseRanges(field[0], size)
	if !ok || len(ranges) == 0 {
		return slice, false
	}
	start := ranges[0].Start
	if have == nil && start >= size/2 {
		start = 0 // a range that counts from the end; the first slice tells where that is
	}
	slice = httpcache.Slice(nil, start, x.site.slice(), 0)
	if have != nil {
		slice = httpcache.Slice(nil, start, x.site.slice(), size)
	}
	return slice, !s.flights.reaches(flightKey{own, stage}, start, slice.Length)
}

// cutPart makes of a slice that can't be stored the response to a request for a part of it. It reports false if the slice has not all of that.
func cutPart(resp *http.Response, field string) bool {
	have, size, ok := httpcache.ParseContentRange(resp.Header)
	if !ok {
		return false
	}
	ranges, ok := httpcache.ParseRanges(field, size)
	if !ok || len(ranges) != 1 {
		return false
	}
	want := ranges[0]
	skip := want.Start - have.Start
	if skip < 0 || skip+want.Length > have.Length {
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
