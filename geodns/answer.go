package geodns

import (
	"net/netip"

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
	if q.nsid {
		r.nsid = s.Identity
	}
	switch {
	case rcode != dns.RcodeSuccess:
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
