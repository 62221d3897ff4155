package geodns

import (
	"net/netip"

	"github.com/miekg/dns"
)

// worker answers queries one after the other, for one goroutine. What it needs for that it keeps, so that the common answers are made without
// allocating. Its answers are those that a new one would give.
type worker struct {
	server   *Server
	query    query
	resolver resolver
	packer   packer
	tally    tally // of what was answered since its last flush, which is to be before it is sent
}

// newWorker makes the worker of a goroutine that answers many queries: it remembers what it has chosen.
func newWorker(s *Server) *worker {
	w := &worker{server: s}
	w.resolver.memo = new(memo)
	return w
}

// answer maps a query to its response, or to nil where it must be dropped. It does no I/O, and may be called from any
// goroutine once there is a configuration. buf is space for the response, which is made anew where it is too small.
func (s *Server) answer(req []byte, from netip.AddrPort, tcp bool, buf []byte) []byte {
	w, _ := s.workers.Get().(*worker)
	if w == nil {
		w = &worker{server: s}
	}
	defer s.workers.Put(w)
	defer w.tally.flush()
	return w.answer(req, from, tcp, buf)
}

// answer is Server.answer. The response does not refer to req, which may be used again.
func (w *worker) answer(req []byte, from netip.AddrPort, tcp bool, buf []byte) []byte {
	q, r := &w.query, &w.resolver
	rcode, ok := q.parse(req)
	if !ok {
		return nil
	}
	r.snapshot, r.q, r.from = w.server.current.Load(), q, from.Addr().Unmap()
	if r.memo != nil {
		// Before any state of a node is read: what is chosen by one that changes meanwhile must be void with the next query.
		r.memo.follow(r.snapshot.generation, w.server.epoch.Load())
	}
	r.rcode = rcode
	if rcode == dns.RcodeSuccess {
		r.resolve()
	}
	out := r.pack(&w.packer, q, q.limit(tcp), tcp, buf)

	m := w.server.metrics
	w.tally.inc(m.query(q.qtype, r.rcode, tcp))
	for _, c := range r.served {
		w.tally.inc(m.answeredBy(c.node))
	}
	if r.allDown {
		w.tally.inc(&m.allUnhealthy)
	}
	r.snapshot = nil // that of before a Reload need not stay until the next query
	r.response.reset()
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
