package front

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// fieldWatch finds malformed requests of one HTTP/3 connection that quic-go neither refuses nor
// shows: those with a missing or wrong :scheme (RFC 9114, 4.3.1), and those with an empty
// Content-Length. quic-go shows a header block unchanged in one place, its log of events.
// fieldWatch is such a log. It records the streams of these requests and nothing else.
type fieldWatch struct {
	producers atomic.Int32
	some      atomic.Bool // malformed is not empty, or full is true

	mu        sync.Mutex
	malformed map[quic.StreamID]bool
	full      bool
}

// maxMalformed is how many streams of a connection are recorded. quic-go refuses some malformed
// requests by itself, and their streams are never looked up. When the record is full, all further
// requests of the connection are refused.
const maxMalformed = MaxStreams

// AddProducer returns the recorder of events. QUIC calls it first, and its packets don't matter
// here; HTTP/3 calls it next.
func (f *fieldWatch) AddProducer() qlogwriter.Recorder {
	if f.producers.Add(1) == 1 {
		return nil
	}
	return f
}

// RecordEvent checks the header block of a request before its handler is called.
func (f *fieldWatch) RecordEvent(e qlogwriter.Event) {
	parsed, ok := e.(qlog.FrameParsed)
	if !ok {
		return
	}
	if h, ok := parsed.Frame.Frame.(qlog.HeadersFrame); !ok || !isMalformed(h.HeaderFields) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.malformed == nil {
		f.malformed = map[quic.StreamID]bool{}
	}
	if len(f.malformed) == maxMalformed {
		f.full = true
	} else {
		f.malformed[parsed.StreamID] = true
	}
	f.some.Store(true)
}

// Close ends the log.
func (f *fieldWatch) Close() error { return nil }

// isMalformed reports whether a header block is malformed in one of these ways. Trailers never are.
func isMalformed(fields []qlog.HeaderField) bool {
	var method, scheme string
	for i := range fields {
		switch field := &fields[i]; field.Name {
		case ":method":
			method = field.Value
		case ":scheme":
			scheme = field.Value
		case "content-length":
			if field.Value == "" {
				return true
			}
		}
	}
	return method != "" && method != http.MethodConnect && scheme != "https" && !strings.EqualFold(scheme, "https") &&
		!strings.EqualFold(scheme, "http")
}

// refuses reports whether the request with this body is malformed.
func (f *fieldWatch) refuses(body io.Reader) bool {
	if f == nil || !f.some.Load() {
		return false
	}
	stream, ok := body.(interface{ StreamID() quic.StreamID })
	if !ok {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	found := f.malformed[stream.StreamID()]
	delete(f.malformed, stream.StreamID())
	return found || f.full
}
