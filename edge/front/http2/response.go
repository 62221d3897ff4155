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
	status int     // status of WriteHeader; 0 before it is called
	block  *[]byte // unsent header block, without the fields that sendHeader adds
	buffer *[]byte // unsent part of the body
	head   bool    // the method is HEAD

	length       int64 // Content-Length; -1 if there is none
	written      int64
	typed, dated bool     // the header has Content-Type, and Date, even if without a value
	coded        bool     // the header has Content-Encoding
	sent         bool     // the header block is sent
	over         bool     // the handler has returned
	closing      bool     // the handler set "Connection: close"
	trailers     []string // names in the field Trailer
}

func (w *response) init(s *stream) {
	*w = response{s: s, header: http.Header{}, length: -1, head: s.request.Method == http.MethodHead}
}

// Header returns the header of the response. Changes after WriteHeader affect trailers only.
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
		if status != http.StatusSwitchingProtocols { // HTTP/2 has no 101 (RFC 9113, 8.6)
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

// declare records the name of a field that will be sent as a trailer.
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

// appendFields appends the fields of a header to b. For a final response it records what sendHeader
// needs to know, and leaves Content-Length to it.
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

// sendHeader completes the header block and sends it. p is the beginning of the body, from which it
// detects a missing Content-Type. end reports whether the header block ends the stream.
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

// Write writes a piece of the body. It buffers a short piece. For a longer one it waits until the
// client's windows have admitted all of it.
func (w *response) Write(p []byte) (int, error) { return write(w, p) }

// WriteString is Write for a string.
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
		return len(p), nil // the buffered beginning serves to detect Content-Type
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

// flush sends the buffered part of the body, and before it the header block if that is unsent.
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

// FlushError sends the header block and the buffered part of the body to the client.
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

// SetReadDeadline sets the deadline for reading the body. Once it has expired, a later deadline
// does not revive the body, as with net/http.
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

// SetWriteDeadline sets the deadline for sending the response. If it expires before the response is
// sent, the stream is reset.
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

// EnableFullDuplex does nothing: an HTTP/2 response never waits for the end of its request.
func (w *response) EnableFullDuplex() error { return nil }

var errAborted = errors.New("the handler gave up")

// end ends the response after the handler. whole reports whether the handler returned normally. If
// it did not, or wrote less than its Content-Length, the stream is reset.
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

// tail returns the header block of the trailers, or nil if there are none.
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

// dateNow is the value of the field Date during one second.
type dateNow struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[dateNow]

// date returns a time in the format of the field Date.
func date(now time.Time) string {
	d := lastDate.Load()
	if d == nil || d.second != now.Unix() {
		d = &dateNow{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastDate.Store(d)
	}
	return d.text
}
