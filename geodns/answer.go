package geodns

import (
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/miekg/dns"
)

// worker answers queries, one at a time, for one goroutine. It keeps its buffers between queries,
// so that common answers need no allocation. A kept buffer never changes an answer.
type worker struct {
	server   *Server
	query    query
	resolver resolver
	packer   packer
	// Counts since the last flush. The worker's user flushes it before sending the responses.
	tally tally
	// The limiter's clock for the current batch. 0 means that each query reads the clock.
	clock uint64
	// The wall clock for the current batch, in Unix seconds. 0 means that each query reads it.
	wall   int64
	budget *budget // for new signatures; nil means that the worker shares the server's

	unsampled int    // answers from edge names since the last sample
	sampledAt uint64 // time of the last sample, in ticks; 0 means never
}

// newWorker returns a worker for a goroutine that answers many queries. It has a memo of its
// choices.
func newWorker(s *Server) *worker {
	w := &worker{server: s, budget: new(budget)}
	w.resolver.memo = new(memo)
	return w
}

// answer returns the response to a query, or nil if the query must be dropped. It does no I/O. Any
// goroutine may call it once a configuration is loaded. answer writes the response into buf if buf
// is large enough, and allocates otherwise.
func (s *Server) answer(req []byte, from netip.AddrPort, tcp bool, buf []byte) []byte {
	var sess *session
	if tcp {
		sess = &session{limits: defaultTCPLimits()}
	}
	return s.respond(req, from, sess, buf)
}

// respond is like answer, for a query of a TCP connection with the state sess. A nil sess means
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

// answer is like Server.answer. The response doesn't refer to req, so the caller may reuse req.
func (w *worker) answer(req []byte, from netip.AddrPort, tcp bool, buf []byte) []byte {
	var sess *session
	if tcp {
		sess = &session{limits: defaultTCPLimits()}
	}
	return w.respond(req, from, sess, buf)
}

// respond is like Server.respond. If a query makes it panic, that query gets no response and the
// server goes on.
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
	// The last query may have used another snapshot.
	r.located, r.locatedAddr = location{}, netip.Addr{}
	if r.memo != nil {
		// Read the epoch before any node's state. If a state changes during this query, the next
		// query then discards what this one chose.
		r.memo.follow(r.snapshot.generation, s.epoch.Load())
	}
	proven := r.reply(s)
	if tcp && q.keepalive != nil && rcode == dns.RcodeSuccess {
		rcode = r.keepOpen(sess)
	}
	w.decide(rcode, proven)
	var out []byte
	if tcp || proven || !w.limited() {
		w.secure(tcp)
		out = r.pack(&w.packer, q, q.limit(tcp), tcp, buf)
		if !tcp && !proven && len(out) > amplification*len(req) {
			out = w.limitExcess(len(req), out)
		}
	}
	if out != nil {
		w.count(tcp)
		if len(r.served) > 0 {
			w.sample()
		}
		if logs {
			s.QueryLog.write(r.line(began, from, tcp, len(out)))
		}
	}
	r.snapshot = nil // don't keep the old configuration alive until the next query
	r.response.reset()
	return out
}

// forget resets the worker after a panic.
func (w *worker) forget() {
	before := w.resolver.memo
	w.query, w.resolver, w.packer = query{}, resolver{}, packer{}
	if before != nil {
		w.resolver.memo = new(memo)
	}
}

// panicked logs and counts a panic that a query caused.
func (s *Server) panicked(p any, req []byte, from netip.AddrPort) {
	if s.metrics != nil {
		s.metrics.panics.Inc()
	}
	s.log().Error("geodns: panic in an answer: this is a bug in Kaiku; please report it",
		"client", from, "query", fmt.Sprintf("%x", req), "panic", p, "stack", string(debug.Stack()))
}

// decide fills in the response. rcode is the result of parsing the query.
func (w *worker) decide(rcode int, proven bool) {
	q, r := &w.query, &w.resolver
	r.rcode = rcode
	switch {
	case rcode != dns.RcodeSuccess:
	case len(q.question) == 0:
		// The client asks only for a cookie, or has its cookie checked (RFC 7873 section 5.4).
		if len(q.cookie) > clientCookie && !proven {
			r.rcode = dns.RcodeBadCookie
		}
	case q.qclass == dns.ClassCHAOS:
		r.chaos(w.server.Identity)
	default:
		r.resolve()
	}
}

// count counts a response in the metrics.
func (w *worker) count(tcp bool) {
	r, m := &w.resolver, w.server.metrics
	w.tally.inc(m.query(w.query.qtype, r.rcode, tcp))
	if r.zone != nil {
		w.tally.inc(r.snapshot.zoneQueries[r.zone])
	}
	for _, c := range r.served {
		w.tally.inc(m.answeredBy(c.node))
	}
	if r.allDown {
		w.tally.inc(&m.allUnhealthy)
	}
}

// limited applies the rate limit to a response over UDP. It reports whether the response must be
// dropped.
func (w *worker) limited() bool {
	s, r := w.server, &w.resolver
	if r.rates.exempts(r.from) {
		return false
	}
	kind, about := r.kind()
	return w.enforce(s.limiter.take(w.now(), r.rates, kind, about, r.from)) == drop
}

// now returns the limiter's clock.
func (w *worker) now() uint64 {
	if w.clock != 0 {
		return w.clock
	}
	return w.server.limiter.now()
}

// enforce carries out the limiter's verdict, except for the drop itself, which is left to the
// caller.
func (w *worker) enforce(v verdict) verdict {
	switch v {
	case drop:
		w.server.metrics.dropped.Inc()
	case slip:
		w.server.metrics.slipped.Inc()
		w.resolver.withhold()
	}
	return v
}

// limitExcess applies the rate limit to a response that is much longer than its query, which has
// queryLen octets. This limit counts all names together, because a zone may have many names with
// long records. limitExcess returns the response to send, or nil to send none.
func (w *worker) limitExcess(queryLen int, out []byte) []byte {
	r := &w.resolver
	if r.rates.responses == 0 || r.rates.exempts(r.from) {
		return out
	}
	switch w.enforce(w.server.limiter.takeExcess(w.now(), r.rates, len(out)-amplification*queryLen, r.from)) {
	case drop:
		return nil
	case slip:
		return r.pack(&w.packer, &w.query, w.query.limit(false), false, out)
	}
	return out
}

// reply sets NSID and the cookie if the query asked for them. proven reports whether the client's
// cookie proves that the client receives packets at its source address.
func (r *resolver) reply(s *Server) (proven bool) {
	if r.q.nsid {
		r.nsid = s.Identity
	}
	if r.q.cookie != nil {
		r.cookie, proven = s.cookies.reply(r.q.cookie, r.from, time.Now())
	}
	return proven
}

// keepOpen answers the client's question how long the connection stays open. A client must not send
// a time itself (RFC 7828 section 3.2.1). Over UDP the option is ignored (section 3.3.1), so
// keepOpen is called for TCP only.
func (r *resolver) keepOpen(sess *session) (rcode int) {
	if len(r.q.keepalive) > 0 {
		return dns.RcodeFormatError
	}
	sess.keepalive = true
	r.keepalive = sess.timeout()
	return dns.RcodeSuccess
}

// limit returns the size in octets of the longest response that the client accepts.
func (q *query) limit(tcp bool) int {
	switch {
	case tcp:
		return dns.MaxMsgSize
	case q.edns:
		return min(q.udpSize, ednsUDPSize)
	}
	return plainSize
}
