package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fragment is a stored range of a representation. Its bytes are stored under Key.
type Fragment struct {
	Range
	Key Key
}

// ParseContentRange parses the Content-Range of a 206 (RFC 9110, section 14.4). ok is false if the
// complete length is unknown.
func ParseContentRange(h http.Header) (part Range, size int64, ok bool) {
	lines := h["Content-Range"]
	if len(lines) != 1 {
		return Range{}, 0, false
	}
	unit, rest, found := strings.Cut(trimOWS(lines[0]), " ")
	positions, complete, slash := strings.Cut(rest, "/")
	first, last, dash := strings.Cut(positions, "-")
	a, okA := parsePosition(first)
	b, okB := parsePosition(last)
	size, okSize := parsePosition(complete)
	if !found || !slash || !dash || !okA || !okB || !okSize || !equalFold(unit, "bytes") || a > b || b >= size {
		return Range{}, 0, false
	}
	return Range{a, b - a + 1}, size, true
}

// StrongValidator returns the validator by which ranges of a representation may be combined (RFC
// 9110, sections 8.8.1 and 15.3.7.3): a strong entity tag, else a strong Last-Modified, else "".
func (s *Stored) StrongValidator() string {
	if etag := s.Header.Get("Etag"); etag != "" {
		if parseETag(etag).weak {
			return ""
		}
		return etag
	}
	if lm := s.LastModified(); !lm.IsZero() && s.Date().Sub(lm) >= time.Second {
		return s.Header.Get("Last-Modified")
	}
	return ""
}

// Piece is a range of a response body. It comes from a fragment, or from the origin if Key is "".
type Piece struct {
	Range
	Key   Key
	Begin int64 // where the fragment begins
}

// Plan splits the range want, in order, into pieces that fragments have and pieces to be fetched.
func Plan(fragments []Fragment, want Range) []Piece {
	var out []Piece
	at, end := want.Start, want.Start+want.Length
	for at < end {
		var best *Fragment // the fragment that extends furthest from at
		next := end        // start of the next fragment
		for i := range fragments {
			f := &fragments[i]
			switch {
			case f.Start <= at && at < f.Start+f.Length:
				if best == nil || f.Start+f.Length > best.Start+best.Length {
					best = f
				}
			case f.Start > at:
				next = min(next, f.Start)
			}
		}
		if best == nil {
			out = append(out, Piece{Range: Range{at, next - at}})
			at = next
			continue
		}
		n := min(end, best.Start+best.Length) - at
		out = append(out, Piece{Range: Range{at, n}, Key: best.Key, Begin: best.Start})
		at += n
	}
	return out
}

// Slice returns the range to request from the origin when the first bytes of want are missing. It
// is want, extended to whole blocks, but limited to the slice in which want begins and to the gap
// between fragments. limit is the size of the representation, or 0 if it is unknown. block must not
// exceed slice.
func Slice(fragments []Fragment, want Range, block, slice, limit int64) Range {
	base := want.Start / slice * slice
	begin := base + (want.Start-base)/block*block
	end := base + min(slice, (want.Start-base+want.Length+block-1)/block*block)
	if limit > 0 {
		end = min(end, limit)
	}
	for _, f := range fragments {
		if f.Start+f.Length <= want.Start {
			begin = max(begin, f.Start+f.Length)
		} else if f.Start > want.Start {
			end = min(end, f.Start)
		}
	}
	return Range{begin, end - begin}
}

// AddFragment returns fragments with f added and without those that lie inside f, sorted by start.
func AddFragment(fragments []Fragment, f Fragment) []Fragment {
	out := slices.DeleteFunc(slices.Clone(fragments), func(o Fragment) bool {
		return o.Start >= f.Start && o.Start+o.Length <= f.Start+f.Length
	})
	out = append(out, f)
	slices.SortFunc(out, func(a, b Fragment) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	return out
}
