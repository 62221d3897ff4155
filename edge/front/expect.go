package front

import (
	"net/http"
	"reflect"
	"sync"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// A client may send "Expect: 100-continue" and wait for a 100 before it sends its body (RFC 9110,
// 10.1.1). The edge passes the expectation on to the origin. It sends the 100 when the body is
// first read, which is when the origin wants the body or has not answered for a while (package
// origin). Over HTTP/1.1 and HTTP/2, net/http sends it at the first Read; quic-go doesn't.

const continues = "100-continue"

// setExpectation passes the expectation on in the request, and prepares the 100.
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

// waitsHTTP2 reports whether net/http sends a 100 when it reads the body of a request over HTTP/2.
// net/http removes the Expect field, and shows the expectation nowhere else.
func waitsHTTP2(body any) bool {
	v := reflect.Indirect(reflect.ValueOf(body))
	if v.Kind() != reflect.Struct {
		return false
	}
	waits := v.FieldByName("needsContinue")
	return waits.Kind() == reflect.Bool && waits.Bool()
}

// ProceedBy sends the 100 by pass, like interim responses of the origin. A transport reads the body
// in a goroutine of its own, which must not write to the response.
func (x *Exchange) ProceedBy(pass func(status int, h http.Header)) {
	if b := x.body; b != nil && b.proceed != nil {
		b.proceed = sync.OnceFunc(func() { pass(http.StatusContinue, nil) })
	}
}
