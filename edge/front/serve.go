package front

import (
	"cmp"
	"net/http"
	"strconv"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
)

// ServeHTTP answers a request of a client.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.Do(w, r) }

// Do answers a request as if a client had sent it. It returns the exchange, which has the status
// and what the cache did.
func (s *Server) Do(w http.ResponseWriter, r *http.Request) *Exchange {
	x := &Exchange{Request: r}
	s.serve(w, x)
	return x
}

// servePeer answers a request of another edge.
func (s *Server) servePeer(w http.ResponseWriter, r *http.Request) {
	if s.AdmitPeer(w, r) {
		s.serve(w, &Exchange{Request: r, Peer: true})
	}
}

// serve checks a request, limits what it may hold, and calls the Handler. It counts and logs the
// request when that is over.
func (s *Server) serve(w http.ResponseWriter, x *Exchange) {
	r := x.Request
	from, _ := r.Context().Value(clientKey{}).(*client)
	load, status, why := s.conns.underWay.begin(from, from.countRequest(r))
	defer s.conns.underWay.end(from, load)
	s.conns.arrived(from)
	if from != nil {
		from.handling.Store(true)
	}
	x.prepare(s, w, from)
	over := false
	defer func() {
		if over && x.body != nil {
			x.linger() // after the request is counted and logged
		}
	}()
	s.active.Add(1)
	defer s.active.Add(-1)
	if r.ProtoMajor == 3 {
		s.activeQUIC.Add(1)
		defer s.activeQUIC.Add(-1)
		s.conns.begin(from)
		defer s.conns.finish(from)
	}
	began := time.Now()
	x.began = began
	defer func() {
		s.Metrics.observe(x, began)
		if !x.Peer {
			s.logAccess(x, r, began)
		}
	}()
	defer x.end(cmp.Or(s.SendTimeout, SendTimeout))
	defer from.answered(r, x, s.conns.flooding)
	if status == 0 {
		status, why = x.parse()
	}
	unread := s.findBody(x, from, status != 0)
	if x.body != nil {
		defer x.body.answered()
	}
	if status == 0 && unread == nil {
		var release func()
		release, status, why = s.park(x, from)
		defer release()
	}
	if unread != nil {
		status, why = unreadable(unread)
	}
	if status != 0 {
		x.Refuse(status, why)
		over = unread == nil
		return
	}
	s.answer(x)
	if x.status == 0 && !x.hijacked {
		panic(http.ErrAbortHandler) // otherwise net/http would send a 200
	}
	over = true
}

// prepare fills the exchange before it is handled. from may be nil.
func (x *Exchange) prepare(s *Server, w http.ResponseWriter, from *client) {
	r := x.Request
	x.ResponseWriter, x.server, x.control = w, s, http.NewResponseController(w)
	x.sent, x.watchdog, x.client, x.piece, x.tunnel = &s.sent, &s.watchdog, from, SendPiece, s.newTunnel
	if r.ProtoMajor == 1 {
		x.piece = chunk // no other request shares the connection
		if from != nil && from.own != nil {
			x.gather = from.own.gather
		}
	}
	x.plain, x.unsized = r.TLS == nil && !x.Peer, r.ProtoMajor == 3 && r.Method == http.MethodHead
	if r.TLS != nil && r.ProtoMajor < 3 && !x.Peer {
		x.fields = s.altSvc
	}
}

// answer calls the Handler, if the hit lane has no response. A panic ends this request only.
func (s *Server) answer(x *Exchange) {
	defer s.recovered(x)
	if x.Request.ProtoMajor != 3 || !s.answerHTTP3(x) {
		s.Handler.Answer(x)
	}
}

// recovered is deferred around the Handler. After a panic, the client gets a 500, or the response
// is cut off if it has begun. http.ErrAbortHandler cuts a response off and is no fault.
func (s *Server) recovered(x *Exchange) {
	p := recover()
	if p == nil {
		return
	}
	if !x.Request.ProtoAtLeast(1, 1) { // for HTTP/1.0, the end of the connection ends the response
		if from, _ := x.Request.Context().Value(clientKey{}).(*client); from != nil && from.reset != nil {
			defer from.reset()
		}
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.panicked(x.Request, p)
	if x.status != 0 {
		panic(http.ErrAbortHandler)
	}
	x.Fail(http.StatusInternalServerError, httpcache.Status{Detail: "internal-error"})
}

// panicked logs and counts a panic in the handling of a request.
func (s *Server) panicked(r *http.Request, p any) {
	s.Panics.Caught("a request", p, "method", r.Method, "host", r.Host, "target", r.RequestURI, "client", clientIP(r))
}

// Refuse answers a request that isn't served.
func (x *Exchange) Refuse(status int, why string) {
	x.server.LogRefusal(x.Request, status, why)
	if x.Peer {
		x.Header().Set(origin.FailedField, "refused")
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		x.Header().Set("Retry-After", "1")
	}
	x.Fail(status, httpcache.Status{Detail: why})
}

// LogRefusal logs the first refusal of each kind in two minutes.
func (s *Server) LogRefusal(r *http.Request, status int, why string) {
	now := time.Now()
	if s.refusals.Get(why, now) != "" {
		return
	}
	s.refusals.Put(why, "told", now)
	s.Log.Info("request refused; similar refusals won't be logged for two minutes", "status", status, "why", why, "client",
		clientIP(r), "host", r.Host)
}

// Fail answers with an error of the edge itself.
func (x *Exchange) Fail(status int, st httpcache.Status) {
	h := x.Header()
	h.Set("Cache-Control", "no-store")
	h["Cache-Status"] = []string{string(st.Append(nil, x.server.Name))}
	body := x.ErrorBody(status, st.Detail)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(status)
	if x.Request.Method != http.MethodHead {
		_, _ = x.Write(body)
	}
}
