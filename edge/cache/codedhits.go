package cache

import (
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// coded returns the rendering that a request gets in place of h: that of the best coded body that
// the client accepts, or h itself. It returns nil if the ordinary path has to choose, because a
// coded body is not in the RAM tier, or the client may have another form than the chosen one.
// Cache.code chooses alike.
func (s *Hits) coded(h *laneHit, q *front.Request, c *front.Conn) *laneHit {
	codings, ok := s.acceptedBy(q, c)
	if !ok {
		return nil
	}
	chosen := h
	if q.Range == nil || q.Head {
		if chosen = s.bestCoded(h, codings, c); chosen == nil {
			return nil
		}
	}
	if q.Conditional && len(codings) > 0 && !chosen.notModified(q) {
		return nil
	}
	return chosen
}

// bestCoded is coded for a request without Range and conditions.
func (s *Hits) bestCoded(h *laneHit, codings []string, c *front.Conn) *laneHit {
	of := httpcache.Key(h.entry.object.Key())
	for i, coding := range codings {
		key := of.Coding(coding)
		switch o := s.Store.Hot(string(key)); {
		case o != nil && boundTo(o, h.entry.object):
			if o.Size() == 0 {
				return h
			}
			return s.rendered(recordOf(o), o, &h.entry.response, coding, h.site, c)
		case i == 0 && !s.coder.pending(key):
			return nil
		}
	}
	return h
}

// acceptedBy returns the codings of the site that a request accepts. It reports false if the field
// has several lines. A connection remembers the last value of the field.
func (s *Hits) acceptedBy(q *front.Request, c *front.Conn) ([]string, bool) {
	line, n := q.Lines("Accept-Encoding")
	if n == 0 || n > 1 {
		return nil, n == 0
	}
	at := c.Memo.(*laneSite)
	if at.codings == nil || at.accept != string(line) {
		next := *at
		next.accept = string(line)
		if next.codings = at.site.Compress.Accepted([]string{next.accept}); next.codings == nil {
			next.codings = []string{}
		}
		c.Memo, at = &next, &next
	}
	return at.codings, true
}
