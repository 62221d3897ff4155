package front

import "time"

// Ready looks requests up among the responses that are ready to be sent as they are, whole or a
// part. The hit lane asks it once for each request.
type Ready interface {
	// Find fills hit with the response to a request, and appends the header block to hit.Head. It
	// reports false if there is none; the request takes the ordinary path then.
	Find(q *Request, c *Conn, now time.Time, hit *Hit) bool
}

// Conn is what a look-up knows of the connection of a request.
type Conn struct {
	Secure     bool   // it has TLS
	ServerName string // of TLS; "" if the client gave none
	Major      int    // version of HTTP; 0 means 1
	// Memo is what the look-up remembers of the connection, as the site of its last request. It is
	// the look-up's alone.
	Memo any
}

// Hit is a response that is ready to be sent.
type Hit struct {
	Head     []byte // the header block, with the empty line at its end
	Body     []byte // nil where there is none, as in a 304 or the answer to a HEAD
	File     Body   // in place of Body, for one that is in files; else nil
	Status   int
	Site     string // by name
	Counters *Counters
}
