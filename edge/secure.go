package edge

import (
	"net"
	"net/http"
	"strconv"
)

// setHSTS has the response say what the site says about plain HTTP (RFC 6797), if it goes over TLS;
// without, that has no meaning.
func (s *Server) setHSTS(x *exchange) {
	if x.peer || x.r.TLS == nil || x.site.HSTS == "" {
		return
	}
	x.w.SetField("Strict-Transport-Security", x.site.HSTS)
}

// sendToSecure sends a client to https:// if it came by plain HTTP, the site wants that, and there
// is a certificate: a fleet whose certificates are still to come goes on without. It reports
// whether it did.
func (s *Server) sendToSecure(x *exchange) bool {
	if x.peer || x.r.TLS != nil || !x.site.Redirect || s.HTTPS == "" || !s.Certificates.Has(x.asked.Host) {
		return false
	}
	to := x.asked.Host
	if port := s.front.SecureAddr().(*net.TCPAddr).Port; port != 443 {
		to += ":" + strconv.Itoa(port)
	}
	h := x.w.Header()
	h.Set("Location", "https://"+to+x.asked.RequestURI())
	h.Set("Cache-Control", "max-age=3600") // it is the site's policy, and that may change
	h.Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusPermanentRedirect) // which keeps the method (RFC 9110, 15.4.9)
	return true
}
