package front

import (
	"sync/atomic"
	"time"
)

// Ready finds responses that can be sent as they are, whole or in part. The hit lane calls it once
// for each request.
type Ready interface {
	// Find fills hit with the response to a request, and appends the header block to hit.Head. It
	// reports false if there is none; the request then takes the ordinary path.
	Find(q *Request, c *Conn, now time.Time, hit *Hit) bool
}

// Conn is what Find knows of the connection of a request.
type Conn struct {
	Secure     bool   // it has TLS
	ServerName string // the TLS server name (SNI); "" if the client sent none
	Major      int    // version of HTTP, by which Hit.Head is written; 0 means 1
	// Memo belongs to the implementation of Find. It may hold what is worth remembering of the
	// connection, such as the site of its last request.
	Memo any
}

// Hit is a response that is ready to be sent.
type Hit struct {
	// Head is the header block, with the empty line at its end. For HTTP/2 see http2.Ready, and for
	// HTTP/3 RenderQPACK.
	Head     []byte
	Body     []byte // nil if there is none, as in a 304 or the response to a HEAD
	File     Body   // replaces Body if the body is in files; otherwise nil
	Status   int
	Site     string // its name
	Priority string // the value of the Priority field (RFC 9218); "" if there is none
	Counters *Counters
}

// memo is a Conn.Memo that requests of one connection share, which are handled at the same time.
type memo struct{ of atomic.Pointer[any] }

// Load returns the value that was stored last, or nil.
func (m *memo) Load() any {
	if p := m.of.Load(); p != nil {
		return *p
	}
	return nil
}

// Store stores a value, unless it is the one that is stored.
func (m *memo) Store(v any) {
	if p := m.of.Load(); p == nil || *p != v {
		m.of.Store(&v)
	}
}
