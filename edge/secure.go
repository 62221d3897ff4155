package edge

import (
	"net"
	"net/http"
	"strconv"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// setHSTS sets the site's Strict-Transport-Security (RFC 6797) in responses over TLS. It has no
// meaning in others.
func (s *Server) setHSTS(x *front.Exchange, of *site.Site) {
	if x.Peer || x.Request.TLS == nil || of.HSTS == "" {
		return
	}
	x.SetField("Strict-Transport-Security", of.HSTS)
}

// sendToSecure redirects a client to https:// if it came over plain HTTP, the site wants that, and
// there is a certificate. While certificates are missing, the site works without. sendToSecure
// reports whether it redirected.
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
	h.Set("Cache-Control", "max-age=3600") // the site's policy may change
	h.Set("Content-Length", "0")
	x.WriteHeader(http.StatusPermanentRedirect) // it keeps the method (RFC 9110, 15.4.9)
	return true
}
