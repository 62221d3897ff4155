package node

import (
	"context"
	"path/filepath"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// newCertificates are what an edge shows its clients; nil if it has no listener for TLS. ties may
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

// setCertificates has an edge's certificates be those of the fleet file.
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

// challenges are answered by the fleet's own name servers.
type challenges struct {
	*fleet.Challenges
	zones []string
}

// Covers reports whether a host is in one of the zones.
func (c challenges) Covers(host string) bool { return config.InZone(c.zones, host) }

// watchVault tells when there is something new among what the edges share.
func (l *controlPlane) watchVault(v *fleet.Vault, a *certs.ACME) {
	l.more = append(l.more, func(ctx context.Context) error {
		return v.Watch(ctx, a.Changed)
	})
}
