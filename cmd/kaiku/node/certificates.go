package node

import (
	"context"
	"path/filepath"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// newCertificates returns the certificates of an edge, or nil if it has no TLS listener. plane may
// be nil.
func newCertificates(f *config.Fleet, e config.Edge, key *fleet.Key, plane *controlPlane) (*certs.Certificates, error) {
	if !f.Secures() {
		return nil, nil
	}
	c := &certs.Certificates{}
	if a := f.TLS.ACME; a != nil {
		c.ACME = &certs.ACME{Email: a.Email, Directory: a.Directory, Profile: a.Profile,
			Dir: filepath.Join(e.Data, "certificates")}
		if a.CA != "" {
			c.ACME.Roots = f.Path(a.CA)
		}
		if plane != nil {
			secrets, err := key.CertificateSecrets()
			if err != nil {
				return nil, err
			}
			vault := &fleet.Vault{Client: plane.client, Secrets: secrets}
			c.ACME.Vault = vault
			plane.watchVault(vault, c.ACME)
			if zones := f.ChallengeZones(); len(zones) > 0 {
				c.ACME.Challenges = challenges{&fleet.Challenges{Client: plane.client, Registry: plane.registry,
					Servers: f.NameServers()}, zones}
			}
		}
	}
	return c, setCertificates(f, c)
}

// setCertificates applies the fleet file to an edge's certificates.
func setCertificates(f *config.Fleet, c *certs.Certificates) error {
	var files []certs.File
	for _, cert := range f.TLS.Certificates {
		files = append(files, certs.File{Cert: f.Path(cert.Cert), Key: f.Path(cert.Key)})
	}
	if err := c.SetFiles(files); err != nil {
		return err
	}
	var hosts []string
	for _, s := range f.Sites {
		hosts = append(hosts, config.LowerHosts(s.Hosts)...)
	}
	c.SetHosts(hosts)
	return nil
}

// challenges lets the fleet's own name servers answer challenges.
type challenges struct {
	*fleet.Challenges
	zones []string
}

// Covers reports whether a host is in one of the zones.
func (c challenges) Covers(host string) bool { return config.InZone(c.zones, host) }

// watchVault reports changes of what the edges share.
func (l *controlPlane) watchVault(v *fleet.Vault, a *certs.ACME) {
	l.more = append(l.more, func(ctx context.Context) error {
		return v.Watch(ctx, a.Changed)
	})
}
