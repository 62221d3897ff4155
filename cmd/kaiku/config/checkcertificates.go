package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Secures reports whether the fleet's edges serve TLS.
func (f *Fleet) Secures() bool { return f.TLS.ACME != nil || len(f.TLS.Certificates) > 0 }

// ChallengeZones returns the zones in which the fleet's name servers can answer DNS-01 challenges
// (RFC 8555, section 8.4).
func (f *Fleet) ChallengeZones() []string {
	if len(f.NameServers()) == 0 {
		return nil
	}
	var zones []string
	for _, z := range f.GeoDNS.Zones {
		zones = append(zones, strings.ToLower(strings.TrimSuffix(z.Name, ".")))
	}
	return zones
}

// NameServers returns the names of the nodes with the role geodns.
func (f *Fleet) NameServers() []string {
	var names []string
	for _, n := range f.Nodes {
		if n.Has(RoleGeoDNS) {
			names = append(names, n.Name)
		}
	}
	return names
}

// InZone reports whether a host is in one of the zones.
func InZone(zones []string, host string) bool {
	return slices.ContainsFunc(zones, func(z string) bool { return host == z || strings.HasSuffix(host, "."+z) })
}

// Value returns the value of the Strict-Transport-Security header field.
func (h *HSTS) Value() string {
	if h == nil {
		return ""
	}
	v := fmt.Sprintf("max-age=%d", time.Duration(h.MaxAge)/time.Second)
	if h.IncludeSubdomains {
		v += "; includeSubDomains"
	}
	if h.Preload {
		v += "; preload"
	}
	return v
}

// checkTLS checks the certificates and the ACME account. It also reports hosts for which no
// challenge of the certificate authority can be answered.
func (f *Fleet) checkTLS() {
	for i, c := range f.TLS.Certificates {
		f.checkCertificate(fmt.Sprintf("tls.certificates[%d]", i), c)
	}
	for i, s := range f.Sites {
		at := fmt.Sprintf("sites[%d].https", i)
		if !f.Secures() && s.HTTPS != (SiteHTTPS{}) {
			f.errorf(at, "there is no TLS: give tls an acme or certificates")
		}
		if h := s.HTTPS.HSTS; h != nil {
			switch {
			case h.MaxAge < Duration(time.Second):
				f.errorf(at+".hsts", "hsts needs max_age, such as 8760h")
			case h.Preload && (!h.IncludeSubdomains || h.MaxAge < Duration(8760*time.Hour)):
				f.errorf(at+".hsts.preload", "browsers take a host into their lists with include_subdomains and a max_age of 8760h or more only")
			}
		}
	}
	if f.Edge.HTTPS != "" && !f.Secures() {
		f.errorf("edge.https", "there is no TLS: give tls an acme or certificates")
	}
	if f.TLS.ACME != nil {
		f.checkACME()
	}
}

func (f *Fleet) checkCertificate(at string, c Certificate) {
	for key, file := range map[string]string{"cert": c.Cert, "key": c.Key} {
		if file == "" {
			f.errorf(at+"."+key, "a certificate needs cert and key")
		}
	}
}

func (f *Fleet) checkACME() {
	if !strings.Contains(f.TLS.ACME.Email, "@") {
		f.errorf("tls.acme.email", "an ACME account needs an e-mail address")
	}
	if d := f.TLS.ACME.Directory; d != "" && !strings.HasPrefix(d, "https://") {
		f.errorf("tls.acme.directory", "%q is not the URL of a directory: want https://", d)
	}
	edges, control := 0, false
	for _, n := range f.Nodes {
		if n.Has(RoleEdge) {
			edges++
		}
		control = control || n.Has(RoleControl)
	}
	if edges > 1 && !control {
		f.errorf("tls.acme", "%d edges can't share certificates without a node that has the role control: give one node that role, or use tls.certificates", edges)
	}
	zones := f.ChallengeZones()
	for i, s := range f.Sites {
		for j, h := range s.Hosts {
			h = strings.ToLower(h)
			if strings.HasPrefix(h, "*.") && !(control && InZone(zones, h[2:])) && len(f.TLS.Certificates) == 0 {
				f.errorf(fmt.Sprintf("sites[%d].hosts[%d]", i, j),
					"a certificate for %s is only to be had by DNS-01: that needs one of geodns.zones to have it, and nodes with the roles geodns and control", h)
			}
		}
	}
}
