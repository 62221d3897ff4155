package http2

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	xhttp2 "golang.org/x/net/http2"
)

// response is the http.ResponseWriter of a request.
type response struct {
	s      *stream
	header http.Header
	status int     // that WriteHeader was called with; 0 before
	block  *[]byte // header block that is not sent yet, but for what sendHeader adds
	buffer *[]byte // of the body, not sent yet
	head   bool    // the method is HEAD

	length       int64 // that the header says; -1 without
	written      int64
	typed, dated bool // the header block has Content-Type, or need not; and Date
	coded        bool // it has Content-Encoding
	sent         bool // the header block is
	over         bool // the handler has returned
	closing      bool // the handler asked for the end of the connection
	trailers     []string
}

func (w *response) init(s *stream) {
	*w = response{s: s, header: http.Header{}, length: -1, head: s.request.Method == http.MethodHead}
}

// Header is that of the response. What is changed after WriteHeader counts for trailers only.
func (w *response) Header() http.Header { return w.header }

// WriteHeader sends an interim response, or fixes the header of the final one.
func (w *response) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	if w.status != 0 || w.over {
		return
	}
	if status < 200 {
		if status != http.StatusSwitchingProtocols { // which HTTP/2 does not have (RFC 9113, 8.6)
			b := smallBuffers.Get().(*[]byte)
			*b = w.appendFields(AppendStatus((*b)[:0], status), w.header, true)
			_ = w.s.sendHeaders(*b, false, false)
			smallBuffers.Put(b)
		}
		return
	}
	w.status = status
	w.block = smallBuffers.Get().(*[]byte)
	for _, line := range w.header["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			w.declare(textproto.CanonicalMIMEHeaderKey(strings.Trim(name, " \t")))
		}
	}
	if v := w.header.Get("Connection"); strings.EqualFold(v, "close") {
		w.closing = true
	}
	*w.block = w.appendFields(AppendStatus((*w.block)[:0], status), w.header, false)
	if lines := w.header["Priority"]; len(lines) > 0 {
		w.s.setPriority(strings.Join(lines, ", "))
	}
}

// declare notes a field that comes as a trailer.
func (w *response) declare(name string) {
	switch name {
	case "", "Transfer-Encoding", "Content-Length", "Trailer":
		return
	}
	for _, t := range w.trailers {
		if t == name {
			return
		}
	}
	w.trailers = append(w.trailers, name)
}

// appendFields appends the fields of a header, and notes what sendHeader has to know.
func (w *response) appendFields(b []byte, h http.Header, interim bool) []byte {
	for name, lines := range h {
		l := lower(name)
		switch {
		case !validName(l) || isConnectionField(l):
			continue
		case interim && l == "content-length":
			continue
		case interim:
		case l == "content-length":
			if len(lines) > 0 {
				if n, err := strconv.ParseUint(lines[0], 10, 63); err == nil {
					w.length = int64(n)
				}
			}
			continue
		case l == "content-type":
			w.typed = true
		case l == "date":
			w.dated = true
		case l == "content-encoding":
			w.coded = w.coded || len(lines) > 0 && lines[0] != ""
		}
		for _, v := range lines {
			if httpguts.ValidHeaderFieldValue(v) && (l != "te" || v == "trailers") {
				b = AppendField(b, l, v)
			}
		}
	}
	return b
}

// sendHeader sends the header block, before p of the body.
func (w *response) sendHeader(p []byte, end bool) error {
	w.sent = true
	b := *w.block
	if w.length >= 0 {
		var digits [20]byte
		b = AppendField(b, "content-length", string(strconv.AppendInt(digits[:0], w.length, 10)))
	}
	if !w.typed && !w.coded && len(p) > 0 && bodyAllowed(w.status) {
		b = AppendField(b, "content-type", http.DetectContentType(p))
	}
	if !w.dated {
		b = AppendField(b, "date", date(time.Now()))
	}
	err := w.s.sendHeaders(b, true, end)
	if *w.block = b; cap(b) <= 2*smallSize {
		smallBuffers.Put(w.block)
	}
	w.block = nil
	return err
}

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// Write writes a part of the body. It returns when the client's windows let all of it go, or keeps
// it if it is short.
func (w *response) Write(p []byte) (int, error) { return write(w, p) }

// WriteString is Write of a string.
func (w *response) WriteString(p string) (int, error) { return write(w, p) }

func write[T string | []byte](w *response, p T) (int, error) {
	if w.over {
		return 0, errClosed
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if w.length >= 0 && w.written+int64(len(p)) > w.length {
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	if w.buffer == nil {
		w.buffer = smallBuffers.Get().(*[]byte)
		*w.buffer = (*w.buffer)[:0]
	}
	if len(*w.buffer)+len(p) <= smallSize {
		*w.buffer = append(*w.buffer, p...)
		return len(p), nil
	}
	if w.head {
		return len(p), nil // what is kept is for the type of content
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	if len(p) <= smallSize {
		*w.buffer = append(*w.buffer, p...)
		return len(p), nil
	}
	rest := []byte(p)
	if !w.sent {
		if err := w.sendHeader(rest, false); err != nil {
			return 0, err
		}
	}
	if err := w.s.send(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush sends what is kept of the body, and the header block before it.
func (w *response) flush() error {
	if w.buffer == nil || len(*w.buffer) == 0 {
		return nil
	}
	if !w.sent {
		if err := w.sendHeader(*w.buffer, false); err != nil {
			return err
		}
	}
	err := w.s.send(*w.buffer)
	*w.buffer = (*w.buffer)[:0]
	return err
}

// Flush is FlushError without an error.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError sends what was written.
func (w *response) FlushError() error {
	if w.over {
		return errClosed
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.head && w.sent:
		return nil
	case w.head:
		var kept []byte
		if w.buffer != nil {
			kept = *w.buffer
		}
		if err := w.sendHeader(kept, true); err != nil {
			return err
		}
	default:
		if err := w.flush(); err != nil {
			return err
		}
		if !w.sent {
			if err := w.sendHeader(nil, false); err != nil {
				return err
			}
		}
	}
	s, c := w.s, w.s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kick()
	if s.err != nil && s.err != errClosed {
		return s.err
	}
	return nil
}

// SetReadDeadline sets that of reading the body. One that is over stays so, as with net/http.
func (w *response) SetReadDeadline(t time.Time) error {
	s, c := w.s, w.s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.readBy.set(t)
	switch {
	case s.readBy.over():
		s.expireRead()
	case s.waiting:
		s.readBy.arm(c, s.expireRead)
	}
	return nil
}

// SetWriteDeadline sets that of the response. If it is over before that is sent, the stream is
// reset.
func (w *response) SetWriteDeadline(t time.Time) error {
	s, c := w.s, w.s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.err != nil {
		return nil
	}
	s.writeBy.set(t)
	switch {
	case s.writeBy.over():
		s.expireWrite()
		c.kick()
	case s.stalled():
		s.writeBy.arm(c, s.expireWrite)
	}
	return nil
}

// EnableFullDuplex does nothing: a response never waits for the end of its request.
func (w *response) EnableFullDuplex() error { return nil }

var errAborted = errors.New("the handler gave up")

// end ends the response when the handler has returned; whole says whether it has not panicked.
func (w *response) end(whole bool) {
	s, c := w.s, w.s.conn
	if whole && w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	tail := w.tail(whole)
	w.over = true
	kept := w.buffer
	w.buffer = nil
	if whole && !w.sent {
		var p []byte
		if kept != nil {
			p = *kept
		}
		if w.length < 0 && bodyAllowed(w.status) && w.written == int64(len(p)) && (w.written > 0 || !w.head) {
			w.length = w.written
		}
		_ = w.sendHeader(p, tail == nil && (w.head || len(p) == 0))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.err != nil || s.sendEnded:
		if kept != nil {
			smallBuffers.Put(kept)
		}
	case !whole || !w.head && w.length >= 0 && w.written != w.length && bodyAllowed(w.status):
		c.resetStream(s, xhttp2.ErrCodeInternal, errAborted)
	default:
		if w.head && kept != nil {
			*kept = (*kept)[:0]
		}
		s.finish(kept, tail)
	}
	c.ran(s)
	c.maybeClose(s)
	if w.closing && c.drained == serving {
		c.mu.Unlock()
		c.drain()
		c.mu.Lock()
	}
	if !c.writing && c.hasOutput() {
		c.writing = true
		c.writeAll()
	}
}

// tail is the header block of the trailers; nil if there are none.
func (w *response) tail(whole bool) []byte {
	if !whole || w.head {
		return nil
	}
	var b []byte
	add := func(name string, lines []string) {
		l := lower(name)
		if !validName(l) || isConnectionField(l) {
			return
		}
		for _, v := range lines {
			if httpguts.ValidHeaderFieldValue(v) {
				b = AppendField(b, l, v)
			}
		}
	}
	for _, name := range w.trailers {
		add(name, w.header[name])
	}
	for name, lines := range w.header {
		if rest, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			add(textproto.CanonicalMIMEHeaderKey(rest), lines)
		}
	}
	return b
}

// dateNow is what the field Date says in a second.
type dateNow struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[dateNow]

// date is a time as the field Date has it.
func date(now time.Time) string {
	d := lastDate.Load()
	if d == nil || d.second != now.Unix() {
		d = &dateNow{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastDate.Store(d)
	}
	return d.text
}
