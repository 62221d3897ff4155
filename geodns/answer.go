package geodns

import (
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// answer maps a query to its response, or to nil where it must be dropped. It does no I/O, and may be called from any
// goroutine once there is a configuration. buf is space for the response, which is made anew where it is too small.
func (s *Server) answer(req []byte, from netip.AddrPort, tcp bool, buf []byte) []byte {
	q, rcode, ok := parseQuery(req)
	if !ok {
		return nil
	}
	r := resolver{snapshot: s.current.Load(), q: &q, from: from.Addr().Unmap()}
	r.rcode = rcode
	proven := r.options(s)
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
	out := r.pack(&q, q.limit(tcp), tcp, buf)

	s.metrics.query(q.qtype, r.rcode, tcp)
	for _, c := range r.served {
		s.metrics.answered.WithLabelValues(c.node.name).Inc()
	}
	if r.allDown {
		s.metrics.allUnhealthy.Inc()
	}
	return out
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
