package front

import (
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// A client may wait to be told to send its body (Expect: 100-continue; RFC 9110, 10.1.1). The edge
// passes the expectation on, and whoever reads the body tells the client: that is once the origin
// wants it, or has not answered for a while (origin/requestbody.go). net/http does so at the first
// Read, over HTTP/1.1 and HTTP/2; quic-go does not.

const continues = "100-continue"

// setExpectation has a request say so if its client waits to be told, and has the client told.
func setExpectation(x *Exchange, r *http.Request, body any) {
	switch r.ProtoMajor {
	case 2:
		if waitsHTTP2(body) {
			r.Header["Expect"] = []string{continues}
		}
	case 3:
		if httpcache.ListHas(r.Header["Expect"], continues) {
			x.body.proceed = func() { x.WriteHeader(http.StatusContinue) }
		}
	}
}

// waitsHTTP2 reports whether net/http tells the client of a request over HTTP/2 to go on when it
// reads the body. It removes the field, and has nothing else that says so.
func waitsHTTP2(body any) bool {
	v := reflect.Indirect(reflect.ValueOf(body))
	if v.Kind() != reflect.Struct {
		return false
	}
	waits := v.FieldByName("needsContinue")
	return waits.Kind() == reflect.Bool && waits.Bool()
}

// ProceedBy has the client of r told like other interim responses. A transport reads the body in a
// goroutine of its own, in which the answer must not be written to.
func (x *Exchange) ProceedBy(r *http.Request) {
	b := x.body
	if b == nil || b.proceed == nil {
		return
	}
	trace := httptrace.ContextClientTrace(r.Context())
	b.proceed = func() { _ = trace.Got1xxResponse(http.StatusContinue, textproto.MIMEHeader{}) }
}
