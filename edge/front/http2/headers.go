package http2

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Bounds of an encoded header block, besides Limits.MaxHeaderBytes.
const (
	maxFragments = 32 // CONTINUATION frames
	maxPacked    = 2  // encoded bytes, as a multiple of MaxHeaderBytes
)

// headerBlock is the header block that was read last.
type headerBlock struct {
	decoder   *hpack.Decoder
	limit     int // of size
	size      int // counted as in RFC 9113, 6.5.2
	tooLarge  bool
	malformed string // why the block is malformed; "" if it is not

	pseudo                                    [5]bool // which of the next five are present
	method, scheme, authority, path, protocol string
	fields                                    []hpack.HeaderField // the other fields
}

// add checks and adds a decoded field.
func (b *headerBlock) add(f hpack.HeaderField) {
	b.size += int(f.Size())
	if b.size > b.limit {
		b.tooLarge = true
		b.decoder.SetEmitEnabled(false)
		return
	}
	switch {
	case b.malformed != "":
	case !httpguts.ValidHeaderFieldValue(f.Value):
		b.malformed = "a field value with control characters"
	case f.Name != "" && f.Name[0] == ':':
		b.addPseudo(f)
	case !validName(f.Name):
		b.malformed = "a field name that is no token in lower case"
	case isConnectionField(f.Name), f.Name == "te" && f.Value != "trailers":
		b.malformed = "a field of HTTP/1.1's connections"
	default:
		b.fields = append(b.fields, f)
	}
}

// addPseudo adds a pseudo-header field (RFC 9113, 8.3).
func (b *headerBlock) addPseudo(f hpack.HeaderField) {
	var to *string
	var i int
	switch f.Name {
	case ":method":
		to = &b.method
	case ":scheme":
		to, i = &b.scheme, 1
	case ":authority":
		to, i = &b.authority, 2
	case ":path":
		to, i = &b.path, 3
	case ":protocol":
		to, i = &b.protocol, 4
	}
	switch {
	case to == nil:
		b.malformed = "an unknown pseudo-header field"
	case len(b.fields) > 0:
		b.malformed = "a pseudo-header field after another field"
	case b.pseudo[i]:
		b.malformed = "a pseudo-header field twice"
	default:
		*to, b.pseudo[i] = f.Value, true
	}
}

// validName reports whether a name is a token without upper-case letters.
func validName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= 0x80 || 'A' <= c && c <= 'Z' || !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return name != ""
}

// reset clears the block for the next one to be read.
func (b *headerBlock) reset() {
	fields := b.fields
	clear(fields)
	if cap(fields) > 64 {
		fields = nil
	}
	*b = headerBlock{decoder: b.decoder, limit: b.limit, fields: fields[:0]}
	b.decoder.SetEmitEnabled(true)
}

// read decodes a header block from its frames. An error ends the connection; a block that is only
// malformed or too large is no error.
func (b *headerBlock) read(c *conn, f *xhttp2.HeadersFrame) error {
	b.reset()
	fragment, ended := f.HeaderBlockFragment(), f.HeadersEnded()
	packed := 0
	var until time.Time
	for n := 0; ; n++ {
		if packed += len(fragment); packed > maxPacked*b.limit || n > maxFragments {
			return flood("a header block without end")
		}
		if _, err := b.decoder.Write(fragment); err != nil {
			return &connError{xhttp2.ErrCodeCompression, err.Error()}
		}
		if ended {
			break
		}
		if until.IsZero() {
			until = time.Now().Add(c.limits.HeaderTimeout)
		}
		if err := c.within(time.Until(until)); err != nil {
			return err
		}
		next, err := c.fr.ReadFrame()
		if err != nil {
			return err
		}
		more := next.(*xhttp2.ContinuationFrame) // the Framer admits no other frame here
		fragment, ended = more.HeaderBlockFragment(), more.HeadersEnded()
		c.large = true
	}
	if err := b.decoder.Close(); err != nil {
		return &connError{xhttp2.ErrCodeCompression, err.Error()}
	}
	return nil
}

// check marks the block as malformed if it is no valid HTTP/2 request (RFC 9113, 8.3.1).
func (b *headerBlock) check(extended bool) {
	switch {
	case b.malformed != "" || b.tooLarge:
	case b.protocol != "" && (!extended || b.method != http.MethodConnect):
		b.malformed = "a protocol that was not offered"
	case b.method == http.MethodConnect && b.protocol == "":
		if b.path != "" || b.scheme != "" || b.authority == "" {
			b.malformed = "CONNECT with a path or a scheme, or without an authority"
		}
	case b.method == "" || b.path == "" || b.scheme != "https" && b.scheme != "http":
		b.malformed = "no method, no path, or a scheme that is not http or https"
	case strings.Contains(b.authority, "@"):
		b.malformed = "a user in the authority"
	}
}

// readHeaders reads a header block and handles it: a request, or the trailers of one.
func (c *conn) readHeaders(f *xhttp2.HeadersFrame) error {
	id, end := f.StreamID, f.StreamEnded()
	dependent := f.HasPriority() && f.Priority.StreamDep == id
	b := &c.block
	if err := b.read(c, f); err != nil {
		return err
	}
	if id%2 == 0 {
		return protocolError("a stream with an even number")
	}
	if dependent && b.malformed == "" {
		b.malformed = "a stream that depends on itself"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		return c.readTrailers(s, b, end)
	}
	switch {
	case id <= c.lastID && c.wasReset(id):
		return c.costsLocked()
	case id <= c.lastID:
		return protocolError("a stream that was there before")
	case c.drained == goneAway:
		return c.costsLocked()
	}
	c.lastID, c.since = id, c.heard
	c.requests++
	b.check(c.server.ExtendedConnect)
	switch {
	case b.malformed != "":
		c.server.Log.Debug("HTTP/2 request reset", "client", c.remote, "why", b.malformed)
		return c.blame(id, xhttp2.ErrCodeProtocol)
	case len(c.streams) >= c.limits.MaxStreams || len(c.streams)+c.orphans >= 2*c.limits.MaxStreams:
		return c.blame(id, xhttp2.ErrCodeRefusedStream)
	case b.tooLarge:
		c.answerTooLarge(id, end)
		return c.tookBack(nil)
	}
	p := c.priorityOf(id, b.fields)
	if end && c.peer != nil && (b.method == http.MethodGet || b.method == http.MethodHead) && c.answerReady(id, p) {
		return nil
	}
	return c.begin(id, end, p)
}

// answerTooLarge answers a request whose header block is too large with 431. c.mu is held.
func (c *conn) answerTooLarge(id uint32, end bool) {
	block := AppendField(AppendStatus(nil, http.StatusRequestHeaderFieldsTooLarge), "content-length", "0")
	c.out = c.appendHeaders(c.outBuffer(), id, block, true)
	if !end {
		c.appendReset(id, xhttp2.ErrCodeNo)
	}
}

// readTrailers reads the trailers of a request's body. c.mu is held.
func (c *conn) readTrailers(s *stream, b *headerBlock, end bool) error {
	switch {
	case s.recvEnded:
		return c.blame(s.id, xhttp2.ErrCodeStreamClosed)
	case !end, b.malformed != "", b.pseudo != [5]bool{}:
		return c.blame(s.id, xhttp2.ErrCodeProtocol)
	case b.tooLarge:
		return c.blame(s.id, xhttp2.ErrCodeRefusedStream)
	}
	for _, f := range b.fields {
		name := canonical(f.Name)
		if _, ok := s.request.Trailer[name]; ok { // only announced fields count
			if s.trailer == nil {
				s.trailer = http.Header{}
			}
			s.trailer[name] = append(s.trailer[name], f.Value)
		}
	}
	s.endBody(io.EOF)
	c.maybeClose(s)
	return c.costsLocked()
}

// begin hands a request to the handler. c.mu is held.
func (c *conn) begin(id uint32, end bool, p priority) error {
	s := &stream{conn: c, id: id, priority: p, window: c.initial, recvWindow: int64(c.limits.StreamWindow),
		recvEnded: end, running: true, turn: c.nextTurn()}
	s.cond.L = &c.mu
	if !s.makeRequest(&c.block, end) {
		return c.blame(id, xhttp2.ErrCodeProtocol)
	}
	if c.idle() && c.server.Idle != nil {
		c.server.Idle(c.nc, false)
	}
	c.streams[id] = s
	c.work.Add(1)
	go s.run()
	return nil
}

// makeRequest builds the request from a header block. It returns false if the path or the authority
// is malformed.
func (s *stream) makeRequest(b *headerBlock, end bool) bool {
	h := make(http.Header, len(b.fields)+1)
	values := make([]string, len(b.fields))
	for i, f := range b.fields {
		name := canonical(f.Name)
		if lines := h[name]; lines != nil {
			h[name] = append(lines, f.Value)
			continue
		}
		values[i] = f.Value
		h[name] = values[i : i+1 : i+1]
	}
	authority := b.authority
	if authority == "" {
		authority = h.Get("Host")
		if strings.Contains(authority, "@") {
			return false
		}
	}
	if b.protocol != "" {
		h[":protocol"] = []string{b.protocol}
	}
	if httpguts.HeaderValuesContainsToken(h["Expect"], "100-continue") {
		s.body.needsContinue = true
		delete(h, "Expect")
	}
	if cookies := h["Cookie"]; len(cookies) > 1 {
		h["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	r := &http.Request{Method: b.method, Proto: "HTTP/2.0", ProtoMajor: 2, Header: h, Host: authority,
		RemoteAddr: s.conn.remote, Body: http.NoBody,
		Trailer: trailersOf(h["Trailer"])}
	delete(h, "Trailer")
	r.TLS = s.conn.tls // the scheme that the client names does not matter
	if b.method == http.MethodConnect && b.protocol == "" {
		r.URL, r.RequestURI = &url.URL{Host: authority}, authority
	} else {
		var err error
		if r.URL, err = url.ParseRequestURI(b.path); err != nil {
			return false
		}
		r.RequestURI = b.path
	}
	s.declared = -1
	if !end {
		s.body.s, r.Body, r.ContentLength = s, &s.body, -1
		if lines := h["Content-Length"]; len(lines) > 0 {
			n, err := strconv.ParseUint(lines[0], 10, 63)
			if err != nil {
				n = 0
			}
			r.ContentLength, s.declared = int64(n), int64(n)
		}
	}
	ctx, cancel := newContext(s.conn.ctx)
	s.cancel = cancel
	s.request = r.WithContext(ctx)
	return true
}

// trailersOf returns a request's Trailer, made from the values of its field Trailer.
func trailersOf(lines []string) http.Header {
	var h http.Header
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			switch name = canonical(strings.ToLower(strings.Trim(name, " \t"))); name {
			case "", "Transfer-Encoding", "Trailer", "Content-Length":
			default:
				if h == nil {
					h = http.Header{}
				}
				h[name] = nil
			}
		}
	}
	return h
}
