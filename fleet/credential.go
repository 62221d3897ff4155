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

// A credential is what a node can have in place of the fleet key: its certificate with its roles,
// and maybe the only sites that it may purge, the certificates of the authorities that it trusts,
// its private key, and the secrets that its roles need. Who steals it is that node, and no other.

const siteScheme = "kaiku-site"

// Credential makes the credential of a node, in PEM. sites are the only ones that it may purge;
// none is no limit.
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

// credential is one that was read.
type credential struct {
	cert    tls.Certificate // with its leaf parsed
	roots   []*x509.Certificate
	secrets map[string][][]byte // those that the roles need, by the type of their block
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

// siteURIs are the names in a certificate of the sites that its node may purge.
func siteURIs(sites []string) []*url.URL {
	var out []*url.URL
	for _, s := range sites {
		out = append(out, &url.URL{Scheme: siteScheme, Opaque: url.PathEscape(s)})
	}
	return out
}

// sitesOf are the only sites that the node of a certificate may purge; none is no limit.
func sitesOf(cert *x509.Certificate) []string {
	var out []string
	for _, u := range cert.URIs {
		if site, err := url.PathUnescape(u.Opaque); err == nil && u.Scheme == siteScheme {
			out = append(out, site)
		}
	}
	return out
}

// subjectOf is the subject of purges of a site; "" is those of no single one.
func subjectOf(site string) string {
	if site == "" {
		return purgeSubject + ".all"
	}
	return purgeSubject + ".site-" + encodeToken(site)
}

// siteOf is the site of a subject.
func siteOf(subject string) string {
	token, ok := strings.CutPrefix(subject, purgeSubject+".site-")
	if !ok {
		return ""
	}
	return decodeToken(token)
}
