package edge

import (
	"maps"
	"net"
	"net/http"
	"strconv"
)

// secureSite does what a site says about plain HTTP: it reports true if the client was sent to https://. Responses over TLS get the field Strict-Transport-Security (RFC 6797), which has no meaning without.
func (s *Server) secureSite(x *exchange) bool {
	switch {
	case s.https == nil:
	case x.r.TLS != nil && x.site.HSTS != "":
		fields := maps.Clone(x.w.fields)
		if fields == nil {
			fields = http.Header{}
		}
		fields["Strict-Transport-Security"] = []string{x.site.HSTS}
		x.w.fields = fields
	case x.r.TLS == nil && x.site.Redirect:
		to := x.host
		if port := s.https.Addr().(*net.TCPAddr).Port; port != 443 {
			to += ":" + strconv.Itoa(port)
		}
		h := x.w.Header()
		h.Set("Location", "https://"+to+target(x.r))
		h.Set("Cache-Control", "max-age=3600") // it is the site's policy, and that may change
		h.Set("Content-Length", "0")
		x.w.WriteHeader(http.StatusPermanentRedirect) // which keeps the method (RFC 9110, 15.4.9)
		return true
	}
	return false
}
