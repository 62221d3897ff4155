package edge

import (
	"errors"
	"net/http"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
)

var errPanic = errors.New("a fault of the edge itself, which its log tells of")

// panicked logs and counts a panic. What it happened in ends; the edge goes on.
func (s *Server) panicked(where string, panicked any, attrs ...any) {
	s.panics.Add(1)
	s.Log.Error("panic in "+where+": this is a fault of Kaiku; please report it", append(attrs, "panic", panicked, "stack", string(debug.Stack()))...)
}

// recovered is deferred by what answers a request. A request that panics gets 500, or is cut off if
// its response has begun. http.ErrAbortHandler is how handlers cut a response off, and no fault.
func (s *Server) recovered(x *exchange) {
	p := recover()
	if p == nil {
		return
	}
	if !x.r.ProtoAtLeast(1, 1) { // its client takes the end of the connection for the end of the response
		if from, _ := x.r.Context().Value(clientKey{}).(*client); from != nil && from.reset != nil {
			defer from.reset()
		}
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.panicked("a request", p, "method", x.r.Method, "host", x.r.Host, "target", x.r.RequestURI, "client", clientIP(x.r))
	if x.w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	s.fail(x, http.StatusInternalServerError, httpcache.Status{Detail: "internal-error"})
}

// guard answers with h, whose clients have to go on sending bodies that they have begun. If it
// panics, the answer is 500. It is for handlers that write their answer at once.
func (s *Server) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p == http.ErrAbortHandler {
				panic(p)
			} else if p != nil {
				s.panicked("the admin API", p, "method", r.Method, "path", r.URL.Path)
				purge.Fail(w, http.StatusInternalServerError, errPanic.Error())
			}
		}()
		if r.Body != http.NoBody {
			var body *requestBody
			r, body = s.watchBody(r, nil, http.NewResponseController(w))
			defer body.answered()
		}
		h.ServeHTTP(w, r)
	})
}

// flySafely is fly, of which a panic is an error like others.
func (s *Server) flySafely(f *flight, t *fetch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked("a fetch", p, "key", f.key)
			err = errPanic
		}
	}()
	return s.fly(f, t)
}

// panicCounter is the metric of panics.
func (s *Server) panicCounter() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "kaiku_edge_panics_total", Help: "Panics, each of which ended one request or fetch and is logged with its stack."},
		func() float64 { return float64(s.panics.Load()) })
}
