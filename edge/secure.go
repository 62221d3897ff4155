package edge

import (
	"net"
	"net/http"
	"strconv"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// setHSTS has the response say what the site says about plain HTTP (RFC 6797), if it goes over TLS;
// without, that has no meaning.
func (s *Server) setHSTS(x *front.Exchange, of *site.Site) {
	if x.Peer || x.Request.TLS == nil || of.HSTS == "" {
		return
	}
	x.SetField("Strict-Transport-Security", of.HSTS)
}

// sendToSecure sends a client to https:// if it came by plain HTTP, the site wants that, and there
// is a certificate: a fleet whose certificates are still to come goes on without. It reports
// whether it did.
func (s *Server) sendToSecure(x *front.Exchange, of *site.Site) bool {
	if x.Peer || x.Request.TLS != nil || !of.Redirect || s.HTTPS == "" || !s.Certificates.Has(x.Target.Host) {
		return false
	}
	to := x.Target.Host
	if port := s.front.SecureAddr().(*net.TCPAddr).Port; port != 443 {
		to += ":" + strconv.Itoa(port)
	}
	h := x.Header()
	h.Set("Location", "https://"+to+x.Target.RequestURI())
	h.Set("Cache-Control", "max-age=3600") // it is the site's policy, and that may change
	h.Set("Content-Length", "0")
	x.WriteHeader(http.StatusPermanentRedirect) // which keeps the method (RFC 9110, 15.4.9)
	return true
}
