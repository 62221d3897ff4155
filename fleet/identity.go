package fleet

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"time"
)

// Key is the secret of a fleet, or a credential that was made with it for one node.
type Key struct {
	secrets    []string    // the first is used, all are accepted
	credential *credential // nil if the key has secrets
}

// minKey is the minimum length of a fleet key in bytes. 32 characters of hex or base64 have 128
// bits or more.
const minKey = 32

// ReadKey reads a file with a credential in PEM, or with a fleet key as NewKey takes it.
func ReadKey(file string) (Key, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Key{}, fmt.Errorf("read the fleet key: %w", err)
	}
	k, err := ParseKey(b)
	if err != nil {
		return Key{}, fmt.Errorf("read the fleet key: %s: %w", file, err)
	}
	return k, nil
}

// ParseKey parses what ReadKey reads.
func ParseKey(text []byte) (k Key, err error) {
	if !bytes.HasPrefix(text, []byte("-----BEGIN ")) {
		return NewKey(text)
	}
	k.credential, err = parseCredential(text)
	return k, err
}

// IsCredential reports whether the key is a credential of one node.
func (k Key) IsCredential() bool { return k.credential != nil }

// Knows reports whether nodes with these two keys accept each other as nodes of one fleet.
func (k Key) Knows(other Key) (bool, error) {
	a, err := k.identity("x", nil)
	if err != nil {
		return false, err
	}
	b, err := other.identity("x", nil)
	if err != nil {
		return false, err
	}
	return a.trusts(b) && b.trusts(a), nil
}

// trusts reports whether a node with one credential accepts the other as one of its fleet.
func (c *credential) trusts(other *credential) bool {
	_, err := other.cert.Leaf.Verify(x509.VerifyOptions{Roots: c.pool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

func (c *credential) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, root := range c.roots {
		pool.AddCert(root)
	}
	return pool
}

// NewKey makes a key from the text of its file (see SplitSecrets). Each secret needs at least 32
// bytes.
func NewKey(text []byte) (Key, error) {
	list, err := SplitSecrets(text)
	if err != nil {
		return Key{}, err
	}
	for _, s := range list {
		if len(s) < minKey {
			return Key{}, fmt.Errorf("a fleet key of %d characters is too short: want a line of at least %d random characters, such as `openssl rand -base64 32` prints", len(s), minKey)
		}
	}
	return Key{secrets: list}, nil
}

// derive derives secrets of n bytes for a purpose (RFC 5869), one from each secret of the key.
func (k Key) derive(purpose string, n int) ([][]byte, error) {
	if k.secrets == nil {
		return nil, errors.New("this needs the fleet key itself, not the credential of a node")
	}
	out := make([][]byte, len(k.secrets))
	for i, s := range k.secrets {
		var err error
		if out[i], err = hkdf.Key(sha256.New, []byte(s), nil, "kaiku "+purpose, n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Certificates never expire in practice. A new fleet key ends the trust in them.
var (
	notBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)
)

// authority is a certificate authority of the fleet.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

// authorities derives the authorities, one from each secret of the key. The first issues
// certificates, all are trusted.
func (k Key) authorities() ([]authority, error) {
	seeds, err := k.derive("certificate authority", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	out := make([]authority, len(seeds))
	for i, seed := range seeds {
		key := ed25519.NewKeyFromSeed(seed)
		t := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kaiku fleet"}, NotBefore: notBefore,
			NotAfter: notAfter,
			IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		}
		der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
		if err != nil {
			return nil, fmt.Errorf("make the fleet's certificate authority: %w", err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		out[i] = authority{cert, key}
	}
	return out, nil
}

// TLS returns the configuration of a node for connections to other nodes, as client and as server:
// TLS 1.3, where both sides have a certificate of the fleet's authority with their name and roles.
// A client sets ServerName to the name of the node that it wants.
func (k Key) TLS(node string, roles ...string) (*tls.Config, error) {
	c, err := k.identity(node, roles)
	if err != nil {
		return nil, err
	}
	if name := c.cert.Leaf.Subject.CommonName; name != node {
		return nil, fmt.Errorf("the credential belongs to node %s, not to %s", name, node)
	}
	pool := c.pool()
	return &tls.Config{
		Certificates: []tls.Certificate{c.cert},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"h2"},
	}, nil
}

// PeerTLS is TLS between edges: both sides must be edges. A name server must not ask an edge for
// stored responses with forwarding fields of its choice.
func (k Key) PeerTLS(node string, roles ...string) (*tls.Config, error) {
	conf, err := k.TLS(node, roles...)
	if err != nil {
		return nil, err
	}
	conf.VerifyConnection = func(st tls.ConnectionState) error { return wantRole(st, RoleEdge) }
	return conf, nil
}

// wantRole returns an error unless the other side has a role. Its certificate has been verified
// before.
func wantRole(st tls.ConnectionState, role string) error {
	if len(st.PeerCertificates) == 0 {
		return errors.New("the other side sent no certificate")
	}
	if subject := st.PeerCertificates[0].Subject; !slices.Contains(subject.OrganizationalUnit, role) {
		return fmt.Errorf("node %s does not have the role %s", subject.CommonName, role)
	}
	return nil
}

// identity returns the key's credential, or makes one for a node.
func (k Key) identity(node string, roles []string) (*credential, error) {
	if k.credential != nil {
		return k.credential, nil
	}
	all, err := k.authorities()
	if err != nil {
		return nil, err
	}
	der, key, err := all[0].newLeaf(node, roles, nil)
	if err != nil {
		return nil, err
	}
	c := &credential{cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
	if c.cert.Leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	for _, a := range all {
		c.roots = append(c.roots, a.cert)
	}
	return c, nil
}

// newLeaf makes a certificate of a node and its private key.
func (a authority) newLeaf(node string, roles, sites []string) (der []byte, key ed25519.PrivateKey, err error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: node, OrganizationalUnit: roles}, DNSNames: []string{node},
		URIs:      siteURIs(sites),
		NotBefore: notBefore, NotAfter: notAfter, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, public, a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the certificate of node %s: %w", node, err)
	}
	return der, key, nil
}

// withRole returns a copy of a node's TLS configuration that accepts any node with a role, whatever
// its name and address.
func withRole(conf *tls.Config, role string) *tls.Config {
	conf = conf.Clone()
	conf.NextProtos = nil
	conf.InsecureSkipVerify = true // skips the check of the name only: VerifyConnection verifies the rest
	conf.VerifyConnection = func(st tls.ConnectionState) error {
		if len(st.PeerCertificates) == 0 {
			return errors.New("the other side sent no certificate")
		}
		cert := st.PeerCertificates[0]
		if _, err := cert.Verify(x509.VerifyOptions{Roots: conf.RootCAs,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			return fmt.Errorf("the other side is not a node of this fleet: %w", err)
		}
		if role == "" {
			return nil
		}
		return wantRole(st, role)
	}
	return conf
}
