package http2

import (
	"strings"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// priority is the priority of a response (RFC 9218).
type priority struct {
	urgency     uint8 // 0 is sent first, 7 last
	incremental bool  // it takes turns with others of its urgency
}

var defaultPriority = priority{urgency: 3}

// maxEarly bounds the priorities kept for streams that are not opened yet.
const maxEarly = 32

// priorityOf returns the priority of a request. A PRIORITY_UPDATE that came before the request
// overrides its Priority field (RFC 9218, 7). c.mu is held.
func (c *conn) priorityOf(id uint32, fields []hpack.HeaderField) priority {
	if len(c.early) > 0 {
		if p, ok := c.early[id]; ok {
			delete(c.early, id)
			return p
		}
	}
	for _, f := range fields {
		if f.Name == "priority" {
			return defaultPriority.and(f.Value)
		}
	}
	return defaultPriority
}

// and returns p changed by the members u and i of the value of a Priority field, a Dictionary of
// RFC 9651. It ignores other members, values out of range or of another type, and malformed text.
func (p priority) and(v string) priority {
	for member := range strings.SplitSeq(v, ",") {
		member, _, _ = strings.Cut(strings.Trim(member, " \t"), ";") // without parameters
		key, value, given := strings.Cut(member, "=")
		switch {
		case key == "u" && given && len(value) == 1 && '0' <= value[0] && value[0] <= '7':
			p.urgency = value[0] - '0'
		case key == "i" && !given, key == "i" && value == "?1":
			p.incremental = true
		case key == "i" && value == "?0":
			p.incremental = false
		}
	}
	return p
}

// setPriority overrides a response's priority with the response's own Priority field (RFC 9218, 5).
func (s *stream) setPriority(v string) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.priority = s.priority.and(v)
}

func (c *conn) readPriorityUpdate(f *xhttp2.PriorityUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := f.PrioritizedStreamID
	s := c.streams[id]
	switch {
	case id%2 == 0:
		return protocolError("PRIORITY_UPDATE of a stream that is not the client's")
	case s != nil:
		s.priority = defaultPriority.and(f.Priority)
	case c.isIdle(id) && (len(c.early) < maxEarly || c.early[id] != priority{}):
		if c.early == nil {
			c.early = map[uint32]priority{}
		}
		c.early[id] = defaultPriority.and(f.Priority)
	}
	for known := range c.early { // drop the priorities of streams that can't be opened any more
		if known <= c.lastID {
			delete(c.early, known)
		}
	}
	return c.costsLocked()
}

// nextTurn returns the next number of the sequence that orders responses by when they came or were
// last sent from. c.mu is held.
func (c *conn) nextTurn() uint64 {
	c.turn++
	return c.turn
}

// fairEach is how often, in DATA frames, one goes to the response that has waited longest, whatever
// its urgency, so that none starves.
const fairEach = 8

// next chooses the stream whose body the next DATA frame carries. It returns nil if no stream can
// send. c.mu is held.
func (c *conn) next() *stream {
	var best *stream
	fair := c.turn%fairEach == 0
	for i := 0; i < len(c.ready); {
		s := c.ready[i]
		switch {
		case !s.sendable():
			c.ready[i] = c.ready[len(c.ready)-1]
			c.ready[len(c.ready)-1] = nil
			c.ready = c.ready[:len(c.ready)-1]
			s.queued = false
			continue
		case c.sendWindow <= 0 && s.left() > 0:
		case best == nil, fair && s.served < best.served, !fair && s.before(best):
			best = s
		}
		i++
	}
	return best
}

// before reports whether s is sent before other. At the same urgency, a response that is not
// incremental keeps its turn until it is complete. Incremental ones take turns.
func (s *stream) before(other *stream) bool {
	if s.priority.urgency != other.priority.urgency {
		return s.priority.urgency < other.priority.urgency
	}
	return s.turn < other.turn
}
