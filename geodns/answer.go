package geodns

import (
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/miekg/dns"
)

// worker answers queries one after the other, for one goroutine. What it needs for that it keeps,
// so that the common answers are made without allocating. Its answers are those that a new one
// would give.
type worker struct {
	server   *Server
	query    query
	resolver resolver
	packer   packer
	tally    tally  // of what was answered since its last flush, which is to be before it is sent
	clock    uint64 // the limiter's time of the batch; 0 where each query has its own
}

// newWorker makes the worker of a goroutine that answers many queries: it remembers what it has
// chosen.
func newWorker(s *Server) *worker {
	w := &worker{server: s}
	w.resolver.memo = new(memo)
	return w
}

// answer maps a query to its response, or to nil where it must be dropped. It does no I/O, and may
// be called from any goroutine once there is a configuration. buf is space for the response, which
// is made anew where it is too small.
func (s *Server) answer(req []byte, from netip.AddrPort, tcp bool, buf []byte) []byte {
	var sess *session
	if tcp {
		sess = &session{limits: defaultTCPLimits()}
	}
	return s.respond(req, from, sess, buf)
}

// respond is answer for a connection, which may be used for more queries; without one it is over
// UDP.
func (s *Server) respond(req []byte, from netip.AddrPort, sess *session, buf []byte) []byte {
	w, _ := s.workers.Get().(*worker)
	if w == nil {
		w = &worker{server: s}
	}
	defer s.workers.Put(w)
	defer w.tally.flush()
	return w.respond(req, from, sess, buf)
}

// answer is Server.answer. The response does not refer to req, which may be used again.
func (w *worker) answer(req []byte, from netip.AddrPort, tcp bool, buf []byte) []byte {
	var sess *session
	if tcp {
		sess = &session{limits: defaultTCPLimits()}
	}
	return w.respond(req, from, sess, buf)
}

// respond is Server.respond. A query that makes it panic gets no response, and the server goes on.
func (w *worker) respond(req []byte, from netip.AddrPort, sess *session, buf []byte) (resp []byte) {
	defer func() {
		if p := recover(); p != nil {
			w.server.panicked(p, req, from)
			w.forget()
			resp = nil
		}
	}()
	s, q, r := w.server, &w.query, &w.resolver
	rcode, ok := q.parse(req)
	if !ok {
		return nil
	}
	tcp, logs := sess != nil, s.QueryLog.samples()
	var began time.Time
	if logs {
		began = time.Now()
	}
	r.snapshot, r.q, r.from = s.current.Load(), q, from.Addr().Unmap()
	if r.memo != nil {
		// Before any state of a node is read: what is chosen by one that changes meanwhile must be
		// void with the next query.
		r.memo.follow(r.snapshot.generation, s.epoch.Load())
	}
	proven := r.reply(s)
	if tcp && q.keepalive != nil && rcode == dns.RcodeSuccess {
		rcode = r.keepOpen(sess)
	}
	w.decide(rcode, proven)
	var out []byte
	if tcp || proven || !w.limited() {
		out = r.pack(&w.packer, q, q.limit(tcp), tcp, buf)
		if !tcp && !proven && len(out) > amplification*len(req) {
			out = w.dampen(len(req), out)
		}
	}
	if out != nil {
		w.count(tcp)
		if logs {
			s.QueryLog.write(r.line(began, from, tcp, len(out)))
		}
	}
	r.snapshot = nil // that of before a Reload need not stay until the next query
	r.response.reset()
	return out
}

// forget drops what the worker was in the middle of.
func (w *worker) forget() {
	before := w.resolver.memo
	w.query, w.resolver, w.packer = query{}, resolver{}, packer{}
	if before != nil {
		w.resolver.memo = new(memo)
	}
}

// panicked logs and counts a panic, which a query has caused.
func (s *Server) panicked(p any, req []byte, from netip.AddrPort) {
	if s.metrics != nil {
		s.metrics.panics.Inc()
	}
	s.log().Error("geodns: panic in an answer: this is a fault of Kaiku; please report it", "client", from, "query", fmt.Sprintf("%x", req), "panic", p, "stack", string(debug.Stack()))
}

// decide fills the response to what was parsed with an rcode.
func (w *worker) decide(rcode int, proven bool) {
	q, r := &w.query, &w.resolver
	r.rcode = rcode
	switch {
	case rcode != dns.RcodeSuccess:
	case len(q.question) == 0:
		// Only a cookie is asked for, or shown to be confirmed (RFC 7873 section 5.4).
		if len(q.cookie) > clientCookie && !proven {
			r.rcode = dns.RcodeBadCookie
		}
	case q.qclass == dns.ClassCHAOS:
		r.chaos(w.server.Identity)
	default:
		r.resolve()
	}
}

// count counts a response.
func (w *worker) count(tcp bool) {
	r, m := &w.resolver, w.server.metrics
	w.tally.inc(m.query(w.query.qtype, r.rcode, tcp))
	if r.zone != nil {
		w.tally.inc(r.snapshot.asked[r.zone])
	}
	for _, c := range r.served {
		w.tally.inc(m.answeredBy(c.node))
	}
	if r.allDown {
		w.tally.inc(&m.allUnhealthy)
	}
}

// limited holds a response over UDP to the rate limit; true where it must not be sent.
func (w *worker) limited() bool {
	s, r := w.server, &w.resolver
	if r.rates.exempts(r.from) {
		return false
	}
	kind, about := r.kind()
	return w.hold(s.limiter.take(w.now(), r.rates, kind, about, r.from)) == drop
}

// now is the limiter's time.
func (w *worker) now() uint64 {
	if w.clock != 0 {
		return w.clock
	}
	return w.server.limiter.now()
}

// hold does what the limiter has decided, but for leaving the response out.
func (w *worker) hold(v verdict) verdict {
	switch v {
	case drop:
		w.server.metrics.dropped.Inc()
	case slip:
		w.server.metrics.slipped.Inc()
		w.resolver.withhold()
	}
	return v
}

// dampen holds what is much longer than its query, of a number of octets, to the rate limit,
// whatever it is about: of names with long records there may be many. It gives what is to be sent,
// nil if nothing is.
func (w *worker) dampen(asked int, out []byte) []byte {
	r := &w.resolver
	if r.rates.responses == 0 || r.rates.exempts(r.from) {
		return out
	}
	switch w.hold(w.server.limiter.takeExcess(w.now(), r.rates, len(out)-amplification*asked, r.from)) {
	case drop:
		return nil
	case slip:
		return r.pack(&w.packer, &w.query, w.query.limit(false), false, out)
	}
	return out
}

// reply fills what is said in options that were asked for. proven means that the client has shown
// with a cookie that it gets what is sent to its address.
func (r *resolver) reply(s *Server) (proven bool) {
	if r.q.nsid {
		r.nsid = s.Identity
	}
	if r.q.cookie != nil {
		r.cookie, proven = s.cookies.reply(r.q.cookie, r.from, time.Now())
	}
	return proven
}

// keepOpen answers a client that asks for how long its connection stays open. A client must not say
// a time itself (RFC 7828 section 3.2.1), and over UDP the option is ignored (section 3.3.1).
func (r *resolver) keepOpen(sess *session) (rcode int) {
	if len(r.q.keepalive) > 0 {
		return dns.RcodeFormatError
	}
	sess.keepalive = true
	r.keepalive = sess.timeout()
	return dns.RcodeSuccess
}

// limit is the longest response that the client takes.
func (q *query) limit(tcp bool) int {
	switch {
	case tcp:
		return dns.MaxMsgSize
	case q.edns:
		return min(q.udpSize, ednsUDPSize)
	}
	return plainSize
}
