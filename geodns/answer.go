package geodns

import (
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// answer maps a query to its response, or to nil where it must be dropped. It does no I/O, and may be called from any
// goroutine once there is a configuration. buf is space for the response, which is made anew where it is too small.
func (s *Server) answer(req []byte, from netip.AddrPort, tcp bool, buf []byte) []byte {
	var sess *session
	if tcp {
		sess = new(session)
	}
	return s.respond(req, from, sess, buf)
}

// respond is answer for a connection, which may be used for more queries; without one it is over UDP.
func (s *Server) respond(req []byte, from netip.AddrPort, sess *session, buf []byte) []byte {
	q, rcode, ok := parseQuery(req)
	if !ok {
		return nil
	}
	tcp := sess != nil
	logs := s.QueryLog.samples()
	var began time.Time
	if logs {
		began = time.Now()
	}
	r := resolver{snapshot: s.current.Load(), q: &q, from: from.Addr().Unmap()}
	proven := r.options(s)
	if tcp && q.keepalive != nil && rcode == dns.RcodeSuccess {
		rcode = r.keepOpen(sess)
	}
	r.rcode = rcode
	switch {
	case rcode != dns.RcodeSuccess:
	case len(q.question) == 0:
		// Only a cookie is asked for, or shown to be confirmed (RFC 7873 section 5.4).
		if len(q.cookie) > clientCookie && !proven {
			r.rcode = dns.RcodeBadCookie
		}
	case q.qclass == dns.ClassCHAOS:
		r.chaos(s.Identity)
	default:
		r.resolve()
	}
	if !tcp && !proven && s.limited(&r) {
		return nil
	}
	out := r.pack(&q, q.limit(tcp), tcp, buf)

	s.metrics.query(q.qtype, r.rcode, tcp)
	for _, c := range r.served {
		s.metrics.answered.WithLabelValues(c.node.name).Inc()
	}
	if r.allDown {
		s.metrics.allUnhealthy.Inc()
	}
	if logs {
		s.QueryLog.write(r.line(began, from, tcp, len(out)))
	}
	return out
}

// limited holds a response over UDP to the rate limit; true where it must not be sent.
func (s *Server) limited(r *resolver) bool {
	if r.rates.exempts(r.from) {
		return false
	}
	kind, about := r.kind()
	switch s.limiter.take(s.limiter.now(), r.rates, kind, about, r.from) {
	case drop:
		s.metrics.dropped.Inc()
		return true
	case slip:
		s.metrics.slipped.Inc()
		r.withhold()
	}
	return false
}

// options fills what is said in options that were asked for. proven means that the client has shown with a cookie that it
// gets what is sent to its address.
func (r *resolver) options(s *Server) (proven bool) {
	if r.q.nsid {
		r.nsid = s.Identity
	}
	if r.q.cookie != nil {
		r.cookie, proven = s.cookies.reply(r.q.cookie, r.from, time.Now())
	}
	return proven
}

// keepOpen answers a client that asks for how long its connection stays open. A client must not say a time itself (RFC 7828
// section 3.2.1), and over UDP the option is ignored (section 3.3.1).
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
