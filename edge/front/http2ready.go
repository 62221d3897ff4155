package front

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/kaiku-cdn/kaiku/edge/front/http2"
)

// maxHeld is how many bytes of bodies in memory may wait for clients to which the hit lane responds
// over HTTP/2. The RAM tier may have evicted them meanwhile.
const maxHeld = 64 << 20

// readyHTTP2 is the hit lane of HTTP/2. It finds the same responses as the lane of HTTP/1.1.
type readyHTTP2 struct {
	server *Server
	held   atomic.Int64
}

// lookUp holds a request over HTTP/2 and the response found for it.
type lookUp struct {
	ask Request
	hit Hit
}

var lookUps = sync.Pool{New: func() any { return new(lookUp) }}

// http2Conn is what the lane knows of an HTTP/2 connection.
type http2Conn struct {
	from    Conn
	client  *client   // nil if the lane doesn't serve the connection
	address string    // of the client, for the access log
	heard   time.Time // when conns.heard was last called
}

// Open returns an *http2Conn for a connection. The lane serves those over TLS only.
func (*readyHTTP2) Open(c http2.Conn) any {
	own := asClientConn(c.NetConn)
	if own == nil || !c.Secure {
		return &http2Conn{}
	}
	address, _, _ := net.SplitHostPort(c.RemoteAddr)
	return &http2Conn{client: &own.client, address: address,
		from: Conn{Secure: true, Major: 2, ServerName: c.ServerName}}
}

// Find finds a stored response that answers a request at once.
func (l *readyHTTP2) Find(conn any, r *http2.Request, b []byte) ([]byte, http2.Answer, bool) {
	c, s := conn.(*http2Conn), l.server
	if c.client == nil {
		return nil, http2.Answer{}, false
	}
	u := lookUps.Get().(*lookUp)
	defer func() {
		u.hit = Hit{}
		lookUps.Put(u)
	}()
	size, ok := u.ask.take(r)
	began := time.Now()
	u.hit = Hit{Head: b}
	if !ok || !s.Ready.Find(&u.ask, &c.from, began, &u.hit) {
		return nil, http2.Answer{}, false
	}
	length := int64(len(u.hit.Body))
	if u.hit.File != nil {
		length = u.hit.File.Len()
	}
	if length > r.Window { // the ordinary path bounds responses that wait for their clients
		u.hit.close()
		return nil, http2.Answer{}, false
	}
	a := answers.Get().(*readyAnswer)
	*a = readyAnswer{ready: l, client: c.client, counters: u.hit.Counters, file: u.hit.File, began: began}
	if !a.hold(len(u.hit.Body), r.Room, size) {
		u.hit.close()
		return nil, http2.Answer{}, false
	}
	s.active.Add(1)
	s.Metrics.lane.Inc()
	c.client.requests.Add(1)
	c.client.credit.Add(int64(requestFree + 2*size))
	if began.Sub(c.heard) > laneIdle/2 { // clients with recent requests are the last to make room
		c.heard = began
		s.conns.heard(c.client)
	}
	if s.AccessLog.samples() {
		a.line = &access{client: c.address, protocol: "HTTP/2.0", method: r.Method, host: r.Authority, target: r.Path,
			site: u.hit.Site, cache: "hit", status: u.hit.Status, began: began, referer: u.ask.first("Referer"),
			agent: u.ask.first("User-Agent")}
	}
	out := http2.Answer{Body: u.hit.Body, Priority: u.hit.Priority, Release: a}
	if u.hit.File != nil { // a nil Body would make a File that is not nil
		out.File = u.hit.File
	}
	return u.hit.Head, out, true
}

// readyAnswer is a response of the lane that is being sent.
type readyAnswer struct {
	ready    *readyHTTP2
	client   *client
	counters *Counters
	file     Body // nil if the body is in memory
	began    time.Time
	line     *access // entry of the access log; nil if the response is not logged
	waits    bool    // it waits for the client, and counts among the requests under way
	load     int64   // what it counts as there
	held     int64   // bytes of maxHeld that it takes up
}

var answers = sync.Pool{New: func() any { return new(readyAnswer) }}

// hold counts a response of n bytes in memory, or one from a file, if it must wait for the client.
// room is http2.Request.Room, and size is that of the request's fields in bytes. hold returns false
// if the response is one too many. The ordinary path then refuses the request or aborts others.
func (a *readyAnswer) hold(n, room, size int) bool {
	if a.file == nil && n <= room {
		return true
	}
	s := a.ready.server
	under := &s.conns.underWay
	if of := a.client.ofNetwork(); of != nil && of.load.Load() >= MaxOfNetwork || under.load.Load() >= maxUnderWay {
		return false
	}
	if a.file == nil {
		if a.held = int64(n); a.ready.held.Add(a.held) > maxHeld {
			a.ready.held.Add(-a.held)
			return false
		}
	}
	a.waits = true
	a.load, _, _ = under.begin(a.client, size)
	return true
}

// release takes back what hold counted.
func (a *readyAnswer) release() {
	if a.waits {
		a.ready.held.Add(-a.held)
		a.ready.server.conns.underWay.end(a.client, a.load)
	}
}

// Done counts and logs the response.
func (a *readyAnswer) Done(sent int64, _ bool) {
	s := a.ready.server
	if a.file != nil {
		a.file.Close()
	}
	a.release()
	s.active.Add(-1)
	a.counters.Observe(sent, a.began)
	s.sent.Add(uint64(sent))
	if a.line != nil {
		a.line.bytes = sent
		s.AccessLog.add(a.line)
	}
	*a = readyAnswer{}
	answers.Put(a)
}

// take makes q the request r, as Read does over HTTP/1.1, and returns the size of its fields in
// bytes. It returns false if the request is not for the lane. The fields of q refer to those of r.
func (q *Request) take(r *http2.Request) (size int, ok bool) {
	q.Head, q.Target, q.Host = r.Method == http.MethodHead, bytesOf(r.Path), bytesOf(r.Authority)
	q.Conditional, q.Range, q.count, q.oneCookie = false, nil, 0, true
	if r.Scheme != "https" || !isPlainTarget(q.Target) || !isPlainHost(q.Host) || len(r.Fields) > len(q.fields) {
		return 0, false
	}
	for _, f := range r.Fields {
		if !q.add(bytesOf(f.Name), bytesOf(f.Value)) {
			return 0, false
		}
		size += len(f.Name) + len(f.Value) + 4
	}
	return size + len(r.Method) + len(r.Authority) + len(r.Path), true
}

// isPlainTarget reports whether a target is one for the lane; see Read.
func isPlainTarget(b []byte) bool {
	n := len(b)
	return n > 0 && n <= MaxURL && b[0] == '/' && targetLength(b) == n &&
		(n == 1 || b[1] != '/' && b[1] != '.' && b[1] != '%')
}

// add adds a field line, for which there is room. It returns false if the field is not for the
// lane.
func (q *Request) add(name, value []byte) bool {
	switch useOf(name) {
	case useNone:
	case useCondition:
		q.Conditional = true
	case useRange:
		if q.Range != nil || len(value) == 0 {
			return false
		}
		q.Range = value
	default:
		return false
	}
	q.fields[q.count] = laneField{name, value}
	q.count++
	return true
}

// bytesOf returns the bytes of a string without a copy. The caller must not change them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
