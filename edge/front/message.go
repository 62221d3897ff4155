package front

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
)

// A request is the same message over HTTP/1.1, HTTP/2 and HTTP/3 (RFC 9110, 6). The HTTP libraries
// differ in how they treat its target, its length, and whether it has a body. The front decides
// these before anything else sees the request.

// endTimeout is how long to wait for the first byte or the end of a body if the header block
// doesn't say whether there is one. HTTP/2 and HTTP/3 signal the end apart from the header block,
// but mostly at the same time. net/http waits as long before it sends a request on.
const endTimeout = 200 * time.Millisecond

// parse checks a request. It returns the status that the request is refused with, and why; 0 if it
// is accepted.
func (x *Exchange) parse() (status int, why string) {
	if x.Request.Method == http.MethodConnect {
		if status, why = x.acceptConnect(); status != 0 {
			return status, why
		}
	}
	switch {
	case len(x.Request.RequestURI) > MaxURL:
		return http.StatusRequestURITooLong, "request target too long"
	case x.client != nil && x.client.fields.refuses(x.Request.Body):
		return http.StatusBadRequest, "malformed :scheme or Content-Length: want http or https, and a number or no such field"
	}
	var err error
	if x.Target, err = httpcache.ParseTarget(x.Request, x.Secure()); err == nil {
		err = httpcache.CheckLength(x.Request)
	}
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	if expect := x.Request.Header["Expect"]; len(expect) > 0 && !httpcache.ListHas(expect, continues) {
		return http.StatusExpectationFailed, unknownExpectation // as net/http does (RFC 9110, 10.1.1)
	}
	return 0, ""
}

const unknownExpectation = "unknown expectation"

// findBody finds out whether a request has a body, if its header block doesn't say. It sets the
// body of a request without one to http.NoBody, and its length to 0. An error is the client's
// fault. If the request is refused, findBody doesn't wait.
func (s *Server) findBody(x *Exchange, from *client, refused bool) error {
	r := x.Request
	if r.ProtoMajor == 2 && r.ContentLength == 0 && r.Header["Content-Length"] == nil {
		r.Body = http.NoBody // Go's HTTP/2 sets this for a stream that has ended
	}
	if !refused && r.ProtoMajor > 1 && r.Body != http.NoBody &&
		(r.ContentLength == 0 || r.ContentLength < 0 && cached(r.Method)) {
		if err := x.awaitEnd(s.endTimeout()); err != nil {
			return err
		}
	}
	if r.Body == http.NoBody {
		return nil
	}
	body := r.Body
	r, x.body = watchBody(r, from, x.control, cmp.Or(s.BodyTimeout, BodyTimeout))
	x.body.slow = s.Metrics.slowBodies
	setExpectation(x, r, body)
	x.Request = r
	switch {
	case refused, r.ContentLength >= 0:
		return nil
	case r.ProtoMajor == 1 && seldomBody(r.Method):
		return x.readFirst()
	case r.ProtoMajor > 1 && !cached(r.Method) && r.Header["Expect"] == nil:
		// reading would send a 100 before the origin wants the body
		return x.awaitBody(s.endTimeout())
	}
	return nil
}

func (s *Server) endTimeout() time.Duration {
	return cmp.Or(s.EndTimeout, endTimeout)
}

// cached reports whether the cache answers requests with a method. A body doesn't change what such
// a request means (RFC 9110, 9.3.1).
func cached(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// seldomBody reports whether most requests of a method have no body.
func seldomBody(method string) bool {
	return cached(method) || method == http.MethodDelete || method == http.MethodOptions || method == http.MethodTrace
}

// awaitEnd waits for the end or the first byte of a body that is probably empty. If neither comes
// in time, the request goes on without a body, and what comes later isn't read.
func (x *Exchange) awaitEnd(timeout time.Duration) error {
	_ = x.control.SetReadDeadline(time.Now().Add(timeout)) // it fails only on a connection without deadlines
	err := x.readFirst()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		x.Request.Body, x.Request.ContentLength = http.NoBody, 0
		x.open = true
		return nil
	}
	return err
}

// readFirst reads the first byte of a body, which may be empty.
func (x *Exchange) readFirst() error {
	r := x.Request
	var p [1]byte
	n, err := io.ReadFull(r.Body, p[:])
	if errors.Is(err, io.EOF) {
		r.Body, r.ContentLength = http.NoBody, 0
		return nil
	}
	if n > 0 {
		r.Body = &begunBody{r.Body, io.MultiReader(bytes.NewReader(p[:n]), r.Body)}
	}
	return err
}

// begunBody is a body whose first byte was read already.
type begunBody struct {
	io.Closer
	io.Reader
}

// awaitBody waits for the first bytes or the end of a body. If neither comes in time, the request
// goes on with a body, because the client may want the response before it sends any.
func (x *Exchange) awaitBody(timeout time.Duration) error {
	b := &awaitedBody{ReadCloser: x.Request.Body, came: make(chan struct{})}
	go b.await()
	wait := time.NewTimer(timeout)
	defer wait.Stop()
	select {
	case <-b.came:
	case <-wait.C:
		x.Request.Body = b
		return nil
	}
	if b.n == 0 && b.err == io.EOF {
		x.Request.Body, x.Request.ContentLength = http.NoBody, 0
		return nil
	}
	x.Request.Body = b
	if b.n == 0 {
		return b.err
	}
	return nil
}

// awaitedBody is a body whose first bytes another goroutine reads. That goroutine ends when they
// come, or with the request.
type awaitedBody struct {
	io.ReadCloser
	came  chan struct{} // closed when first, n and err are set
	first [512]byte
	from  int // where the unread bytes of first begin
	n     int // where they end
	err   error
}

func (b *awaitedBody) await() {
	defer close(b.came)
	for b.n == 0 && b.err == nil {
		b.n, b.err = b.ReadCloser.Read(b.first[:])
	}
}

// Read returns the first bytes, and then reads on.
func (b *awaitedBody) Read(p []byte) (int, error) {
	<-b.came
	switch {
	case b.from < b.n:
		n := copy(p, b.first[b.from:b.n])
		b.from += n
		return n, nil
	case b.err != nil:
		return 0, b.err
	}
	return b.ReadCloser.Read(p)
}

// unreadable returns the status and the reason for refusing a request whose body can't be read.
func unreadable(err error) (status int, why string) {
	status = http.StatusBadRequest
	if origin.IsTimeout(err) {
		status = http.StatusRequestTimeout
	}
	return status, "the body can't be read"
}
