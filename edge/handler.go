package edge

import (
	"io"
	"net/http"
	"strconv"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// handler answers the requests of clients and other edges.
type handler struct{ *Server }

// admitPeer reports whether another edge gets an answer. It doesn't while this edge lacks purges
// that the other one has applied.
func (s *Server) admitPeer(w http.ResponseWriter, r *http.Request) bool {
	if s.purger.Await(r.Context(), r.Header) {
		return true
	}
	s.behind(w)
	return false
}

// serveHealth answers whether the edge serves.
func (s *Server) serveHealth(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Cache-Control", "no-store")
	status, text := http.StatusOK, "ok\n"
	if !s.purger.Trusts() {
		status, text = http.StatusServiceUnavailable, "behind with purges\n"
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// behind answers a peer that has applied purges which this edge lacks. The peer then asks the next
// tier.
func (s *Server) behind(w http.ResponseWriter) {
	w.Header().Set(origin.FailedField, "behind-with-purges")
	w.WriteHeader(http.StatusBadGateway)
}

// Answer answers a request of a client or of another edge.
func (h handler) Answer(x *front.Exchange) {
	r := x.Request
	if x.Target.Path == admin.HealthPath {
		h.serveHealth(x)
		return
	}
	if len(r.TransferEncoding) > 0 && r.ProtoMajor == 1 {
		// It may also have had a Content-Length, which ends the connection (RFC 9112, 6.1).
		// net/http doesn't show that.
		x.Header().Set("Connection", "close")
	}
	if r.TLS == nil && !x.Peer && h.Certificates.AnswerChallenge(x, r, x.Target.Host) {
		return
	}
	of, _ := h.Sites.Now().Find(x.Target.Host)
	if status, why := h.mayServe(x, of); status != 0 {
		x.Refuse(status, why)
		return
	}
	x.SetSite(of.Name)
	if of.ServerTiming {
		x.SetServerTiming()
	}
	h.setHSTS(x, of)
	switch {
	case !x.Peer && h.purger.IsPurge(r):
		h.purger.ServeAtEdge(x, r, x.Target, of)
	case h.sendToSecure(x, of):
	case x.Peer || of.Rules.Len() == 0 || x.Target.Path == "*":
		h.cache.Serve(x, of)
	default:
		h.serveByRules(x, of)
	}
}

// mayServe returns the status that a request is refused with, and why; 0 if it is accepted.
func (s *Server) mayServe(x *front.Exchange, of *site.Site) (status int, why string) {
	fields := 0
	for _, lines := range x.Request.Header {
		fields += len(lines)
	}
	switch {
	case of == nil:
		return http.StatusMisdirectedRequest, "no site has this host"
	case x.Request.TLS != nil && !x.Peer && !s.Sites.Now().ReachedBy(x.Request.TLS.ServerName, of):
		return http.StatusMisdirectedRequest, "the TLS connection was made to another site"
	case x.Request.URL.Scheme == "https" && x.Request.TLS == nil: // an absolute-form target (RFC 9112, 3.2.2)
		return http.StatusMisdirectedRequest, "https over a plain connection"
	case s.cache.Loops(x.Request.Header):
		return http.StatusLoopDetected,
			"the request was here before: the origin of the site, or a proxy before it, leads back to this edge"
	case fields > front.MaxFields:
		return http.StatusRequestHeaderFieldsTooLarge, "too many header fields"
	}
	return 0, ""
}
