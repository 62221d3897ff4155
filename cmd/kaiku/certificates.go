package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// secures reports whether the fleet's edges speak TLS to clients.
func (f *Fleet) secures() bool { return f.TLS.ACME != nil || len(f.TLS.Certificates) > 0 }

// certificates are what an edge shows its clients; nil if it has no listener for TLS. ties may be
// nil.
func (f *Fleet) certificates(e Edge, key *fleet.Key, ties *link) (*certs.Certificates, error) {
	if !f.secures() {
		return nil, nil
	}
	c := &certs.Certificates{}
	if a := f.TLS.ACME; a != nil {
		c.ACME = &certs.ACME{Email: a.Email, Directory: a.Directory, Profile: a.Profile, Dir: filepath.Join(e.Data, "certificates")}
		if a.CA != "" {
			c.ACME.Roots = f.path(a.CA)
		}
		if ties != nil {
			secrets, err := key.CertificateSecrets()
			if err != nil {
				return nil, err
			}
			vault := &fleet.Vault{Client: ties.client, Secrets: secrets}
			c.ACME.Vault = vault
			ties.watchVault(vault, c.ACME)
			if zones := f.challengeZones(); len(zones) > 0 {
				c.ACME.Challenges = challenges{&fleet.Challenges{Client: ties.client, Registry: ties.registry, Servers: f.nameServers()}, zones}
			}
		}
	}
	return c, f.setCertificates(c)
}

// setCertificates has an edge's certificates be those of the fleet file.
func (f *Fleet) setCertificates(c *certs.Certificates) error {
	var files []certs.File
	for _, cert := range f.TLS.Certificates {
		files = append(files, certs.File{Cert: f.path(cert.Cert), Key: f.path(cert.Key)})
	}
	if err := c.SetFiles(files); err != nil {
		return err
	}
	var hosts []string
	for _, s := range f.Sites {
		hosts = append(hosts, lowerHosts(s.Hosts)...)
	}
	c.SetHosts(hosts)
	return nil
}

// challengeZones are the zones in which the fleet's own name servers can answer DNS-01 challenges.
func (f *Fleet) challengeZones() []string {
	if len(f.nameServers()) == 0 {
		return nil
	}
	var zones []string
	for _, z := range f.GeoDNS.Zones {
		zones = append(zones, strings.ToLower(strings.TrimSuffix(z.Name, ".")))
	}
	return zones
}

// nameServers are the names of the nodes with that role.
func (f *Fleet) nameServers() []string {
	var names []string
	for _, n := range f.Nodes {
		if n.has(roleGeoDNS) {
			names = append(names, n.Name)
		}
	}
	return names
}

// inZone reports whether a host is in one of the zones.
func inZone(zones []string, host string) bool {
	return slices.ContainsFunc(zones, func(z string) bool { return host == z || strings.HasSuffix(host, "."+z) })
}

// challenges are answered by the fleet's own name servers.
type challenges struct {
	*fleet.Challenges
	zones []string
}

// Covers reports whether a host is in one of the zones.
func (c challenges) Covers(host string) bool { return inZone(c.zones, host) }

// watchVault tells when there is something new among what the edges share.
func (l *link) watchVault(v *fleet.Vault, a *certs.ACME) {
	l.more = append(l.more, func(ctx context.Context) error {
		return v.Watch(ctx, a.Changed)
	})
}

// alpn are the protocols that a node's edge speaks over TLS on the port that names without one
// mean, as its HTTPS record tells them.
func (f *Fleet) alpn(n *Node) []string {
	if _, port, _ := net.SplitHostPort(f.edgeOf(n).HTTPS); port != "443" || !f.secures() {
		return nil
	}
	return []string{"h2", "h3"}
}

// hsts is the value of Strict-Transport-Security.
func (h *HSTS) value() string {
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

// checkTLS also says what can't be proved to a certificate authority.
func (f *Fleet) checkTLS() {
	for i, c := range f.TLS.Certificates {
		f.checkCertificate(fmt.Sprintf("tls.certificates[%d]", i), c)
	}
	for i, s := range f.Sites {
		at := fmt.Sprintf("sites[%d].https", i)
		if !f.secures() && s.HTTPS != (SiteHTTPS{}) {
			f.errorf(at, "there is no TLS: give tls an acme or certificates")
		}
		if h := s.HTTPS.HSTS; h != nil {
			switch {
			case h.MaxAge < Duration(time.Second):
				f.errorf(at+".hsts", "hsts needs max_age, as 8760h")
			case h.Preload && (!h.IncludeSubdomains || h.MaxAge < Duration(8760*time.Hour)):
				f.errorf(at+".hsts.preload", "browsers take a host into their lists with include_subdomains and a max_age of 8760h or more only")
			}
		}
	}
	if f.Edge.HTTPS != "" && !f.secures() {
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
		if n.has(roleEdge) {
			edges++
		}
		control = control || n.has(roleControl)
	}
	if edges > 1 && !control {
		f.errorf("tls.acme", "%d edges can't share certificates without a node that has the role control: give one node that role, or use tls.certificates", edges)
	}
	zones := f.challengeZones()
	for i, s := range f.Sites {
		for j, h := range s.Hosts {
			h = strings.ToLower(h)
			if strings.HasPrefix(h, "*.") && !(control && inZone(zones, h[2:])) && len(f.TLS.Certificates) == 0 {
				f.errorf(fmt.Sprintf("sites[%d].hosts[%d]", i, j),
					"a certificate for %s is only to be had by DNS-01: that needs one of geodns.zones to have it, and nodes with the roles geodns and control", h)
			}
		}
	}
}
