package front

import (
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// Over HTTP/3, the hit lane answers where the Handler would be called. quic-go shows a stream
// earlier only to a server that accepts the streams itself, and such a server can't send GOAWAY.
// The lane takes the stream over, and writes header block and body at once.

const (
	// http3Head is the header of a HEADERS frame: the type, and a length of two bytes.
	http3Head = 3
	// http3Small is the size of a response that is left to quic-go without waiting for the client.
	// quic-go's own server buffers as much.
	http3Small = 4 << 10
)

var http3Buffers = sync.Pool{New: func() any { b := make([]byte, 0, http3Small); return &b }}

// answerHTTP3 answers a request over HTTP/3 if Ready has the response. It reports whether it did.
func (s *Server) answerHTTP3(x *Exchange) bool {
	w, ok := x.ResponseWriter.(http3.HTTPStreamer)
	if !ok || s.Ready == nil || x.client == nil || x.body != nil || x.Request.TLS == nil {
		return false
	}
	u, b := lookUps.Get().(*lookUp), http3Buffers.Get().(*[]byte)
	defer func() {
		u.hit.close()
		u.hit = Hit{}
		lookUps.Put(u)
		if cap(*b) <= 2*http3Small {
			http3Buffers.Put(b)
		}
	}()
	conn := Conn{Secure: true, Major: 3, ServerName: x.Request.TLS.ServerName, Memo: x.client.memo.Load()}
	u.hit = Hit{Head: append((*b)[:0], make([]byte, http3Head)...)}
	if !u.ask.takeMessage(x.Request) || !s.Ready.Find(&u.ask, &conn, time.Now(), &u.hit) {
		return false
	}
	x.client.memo.Store(conn.Memo)
	size := len(u.hit.Head) - http3Head
	if size >= 1<<14 {
		return false
	}
	stream, err := w.HTTPStream()
	if err != nil {
		return false
	}
	u.hit.Head[0] = 1 // HEADERS
	binary.BigEndian.PutUint16(u.hit.Head[1:], 1<<14|uint16(size))
	s.Metrics.lane.Inc()
	x.SetSite(u.hit.Site)
	x.SetCache(httpcache.Status{Hit: true, TTL: 1})
	x.status = u.hit.Status
	defer func() { // a panic must not leave the stream open
		code := http3.ErrCodeNoError
		if !x.whole {
			code = http3.ErrCodeRequestCanceled
			stream.CancelWrite(quic.StreamErrorCode(code))
		}
		stream.CancelRead(quic.StreamErrorCode(code))
		*b = u.hit.Head
	}()
	x.whole = x.sendHTTP3(stream.QUICStream(), &u.hit) == nil && stream.Close() == nil
	return true
}

// sendHTTP3 writes a response of the lane to its stream.
func (x *Exchange) sendHTTP3(stream *quic.Stream, hit *Hit) error {
	length := int64(len(hit.Body))
	if hit.File != nil {
		length = hit.File.Len()
	}
	x.ResponseWriter = http3Body{x.ResponseWriter, stream}
	if length > 0 {
		hit.Head = quicvarint.Append(append(hit.Head, 0), uint64(length)) // DATA
	}
	if hit.File == nil && int64(len(hit.Head))+length <= http3Small {
		hit.Head = append(hit.Head, hit.Body...)
		if err := stream.TryWriteAll(hit.Head); err == nil {
			x.bytes = length
			x.sent.Add(uint64(length))
			return nil
		}
		hit.Head = hit.Head[:int64(len(hit.Head))-length]
	}
	if _, err := x.writeWatched(hit.Head); err != nil {
		return err
	}
	if hit.File != nil {
		_, err := hit.File.WriteTo(x)
		return err
	}
	_, err := x.Write(hit.Body)
	return err
}

// writeWatched writes what is no body, with the time limit for slow clients.
func (x *Exchange) writeWatched(p []byte) (int, error) {
	x.weight = 1
	x.watchdog.begin(x, time.Now())
	defer x.watchdog.end(x)
	return x.ResponseWriter.Write(p)
}

// http3Body writes to a stream that the lane has taken over.
type http3Body struct {
	http.ResponseWriter
	stream *quic.Stream
}

// Write writes a part of a DATA frame whose header is written already.
func (w http3Body) Write(p []byte) (int, error) { return w.stream.Write(p) }

// takeMessage makes q the request r, as take does for a request over HTTP/2. It returns false if
// the request is not for the lane. The fields of q refer to those of r.
func (q *Request) takeMessage(r *http.Request) bool {
	q.Head, q.Target, q.Host = r.Method == http.MethodHead, bytesOf(r.RequestURI), bytesOf(r.Host)
	q.Conditional, q.Range, q.count, q.oneCookie = false, nil, 0, true
	if !cached(r.Method) || r.Trailer != nil || !isPlainTarget(q.Target) || !isPlainHost(q.Host) {
		return false
	}
	for name, lines := range r.Header {
		for _, value := range lines {
			if q.count == len(q.fields) || !q.add(bytesOf(name), bytesOf(value)) {
				return false
			}
		}
	}
	return true
}

// RenderQPACK returns the beginning of a header block of HTTP/3 (RFC 9204), which means the same on
// every connection.
func RenderQPACK(status int, fields http.Header) []byte {
	var b strings.Builder
	enc := qpack.NewEncoder(&b)
	_ = enc.WriteField(qpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)}) // a Builder never fails
	for name, lines := range fields {
		for _, v := range lines {
			_ = enc.WriteField(qpack.HeaderField{Name: strings.ToLower(name), Value: strings.Trim(v, " \t")})
		}
	}
	return []byte(b.String())
}

// AppendQPACK appends a field to a header block of HTTP/3, as a literal.
func AppendQPACK(b []byte, name string, value []byte) []byte {
	switch name { // names of the static table (RFC 9204, 4.5.4)
	case "age":
		b = append(b, 0x52)
	case "content-length":
		b = append(b, 0x54)
	case "date":
		b = append(b, 0x56)
	default:
		b = append(appendPrefixed(b, 0x20, 3, len(name)), name...)
	}
	return append(appendPrefixed(b, 0, 7, len(value)), value...)
}

// appendPrefixed appends an integer with a prefix of some bits, after the bits of first (RFC 7541,
// 5.1).
func appendPrefixed(b []byte, first byte, bits, n int) []byte {
	limit := 1<<bits - 1
	if n < limit {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(limit))
	return binary.AppendUvarint(b, uint64(n-limit))
}
