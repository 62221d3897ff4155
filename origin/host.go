package origin

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// ClientHost as a Pool's Host sends the Host that the client asked for.
const ClientHost = "client"

// byName reports whether a server is an https one that is given by a DNS name. Its certificate is
// for that name, and mostly it answers under it too.
func httpsByName(u *url.URL) bool {
	_, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" && err != nil
}

// hostFor returns the Host that requests to a server have; "" means that of the request.
func (p *Pool) hostFor(s Server) string {
	switch {
	case p.Relays, p.Host == ClientHost:
		return ""
	case p.Host != "":
		return p.Host
	case httpsByName(s.URL):
		host := serverName(s.URL.Hostname())
		if port := s.URL.Port(); port != "" && port != "443" {
			host += ":" + port
		}
		return host
	}
	return ""
}

// tlsNameFor returns the name that is sent to a server as SNI and that its certificate has to be
// for; "" means that of the Host that is sent.
func (p *Pool) tlsNameFor(s Server) string {
	switch {
	case s.ServerName != "":
		return s.ServerName
	case p.SNI != "":
		return p.SNI
	case p.Host != "" && p.Host != ClientHost:
		return serverName(p.Host)
	case httpsByName(s.URL):
		return serverName(s.URL.Hostname())
	}
	return ""
}

// request makes the request as it goes to one server.
func (p *Pool) request(r *http.Request, b *backend) *http.Request {
	out := r.Clone(r.Context())
	if b.host != "" {
		out.Host = b.host
	}
	out.URL.Scheme = b.URL.Scheme
	out.URL.Host = b.URL.Host
	if out.URL.Scheme == "https" { // the transport takes SNI and the name to verify from here
		switch {
		case b.tlsName != "":
			out.URL.Host = b.tlsName
		case out.Host != "":
			out.URL.Host = serverName(out.Host)
		}
	}
	if p.Secret.Name != "" {
		out.Header.Set(p.Secret.Name, p.Secret.Value)
	}
	return out
}

// serverName is a Host as a name to verify, of which there is one whatever a client writes.
func serverName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
		if strings.Contains(h, ":") {
			host = "[" + h + "]"
		}
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
