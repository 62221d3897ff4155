package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A credential takes the place of the fleet key on a node. It has the node's certificate with its
// roles (and possibly the only sites that it may purge), the certificates of trusted authorities,
// the private key, and the secrets that the roles need. Somebody who steals it can act as that node
// only.

const siteScheme = "kaiku-site"

// Credential makes a node's credential, in PEM. sites are the only sites that it may purge; none
// means no limit.
func (k Key) Credential(node string, roles, sites []string) ([]byte, error) {
	all, err := k.authorities()
	if err != nil {
		return nil, err
	}
	der, key, err := all[0].newLeaf(node, roles, sites)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	blocks := []*pem.Block{{Type: "CERTIFICATE", Bytes: der}}
	for _, a := range all {
		blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	}
	blocks = append(blocks, &pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for _, shared := range secrets {
		if slices.Contains(roles, shared.role) {
			list, err := k.derive(shared.purpose, shared.size)
			if err != nil {
				return nil, err
			}
			for _, secret := range list {
				blocks = append(blocks, &pem.Block{Type: shared.block, Bytes: secret})
			}
		}
	}
	var out []byte
	for _, b := range blocks {
		out = append(out, pem.EncodeToMemory(b)...)
	}
	return out, nil
}

// credential is a parsed credential.
type credential struct {
	cert    tls.Certificate // with its leaf parsed
	roots   []*x509.Certificate
	secrets map[string][][]byte // by the type of their PEM block
}

var errCredential = errors.New("malformed credential of a node: make it again with kaiku credential")

func parseCredential(text []byte) (*credential, error) {
	c := &credential{secrets: map[string][][]byte{}}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errCredential, err)
			}
			certs = append(certs, cert)
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errCredential, err)
			}
			c.cert.PrivateKey = key
		default:
			for _, shared := range secrets {
				if block.Type == shared.block {
					if len(block.Bytes) != shared.size {
						return nil, fmt.Errorf("%w: %s has %d bytes, want %d", errCredential, block.Type,
							len(block.Bytes), shared.size)
					}
					c.secrets[block.Type] = append(c.secrets[block.Type], block.Bytes)
				}
			}
		}
	}
	if len(certs) < 2 || c.cert.PrivateKey == nil {
		return nil, errCredential
	}
	c.cert.Certificate, c.cert.Leaf, c.roots = [][]byte{certs[0].Raw}, certs[0], certs[1:]
	return c, nil
}

// siteURIs returns the URIs by which a certificate names the sites that its node may purge.
func siteURIs(sites []string) []*url.URL {
	var out []*url.URL
	for _, s := range sites {
		out = append(out, &url.URL{Scheme: siteScheme, Opaque: url.PathEscape(s)})
	}
	return out
}

// sitesOf returns the only sites that a certificate's node may purge; none means no limit.
func sitesOf(cert *x509.Certificate) []string {
	var out []string
	for _, u := range cert.URIs {
		if site, err := url.PathUnescape(u.Opaque); err == nil && u.Scheme == siteScheme {
			out = append(out, site)
		}
	}
	return out
}

// subjectOf returns the subject for purges of a site; "" means purges of several sites.
func subjectOf(site string) string {
	if site == "" {
		return purgeSubject + ".all"
	}
	return purgeSubject + ".site-" + encodeToken(site)
}

// siteOf returns the site of a subject.
func siteOf(subject string) string {
	token, ok := strings.CutPrefix(subject, purgeSubject+".site-")
	if !ok {
		return ""
	}
	return decodeToken(token)
}
