package fleet

import "fmt"

// secret is one that all nodes with a role have, derived from the fleet key.
type secret struct {
	role    string
	purpose string // of its derivation
	block   string // type of its PEM block in a credential
	size    int    // in bytes
}

var (
	cookieSecret      = secret{RoleGeoDNS, "dns cookie", "KAIKU DNS COOKIE SECRET", 16}
	certificateSecret = secret{RoleEdge, "certificate vault", "KAIKU CERTIFICATE SECRET", 32}
	edgeSecret        = secret{RoleEdge, "edge tickets and tokens", "KAIKU EDGE SECRET", 32}
	secrets           = [...]secret{cookieSecret, certificateSecret, edgeSecret}
)

// CookieSecret is what all name servers of the fleet make DNS cookies with (RFC 7873).
func (k Key) CookieSecret() (secret [16]byte, err error) {
	err = k.read(cookieSecret, secret[:])
	return secret, err
}

// CertificateSecret is what all edges of the fleet encrypt with what is in the Vault.
func (k Key) CertificateSecret() (secret [32]byte, err error) {
	err = k.read(certificateSecret, secret[:])
	return secret, err
}

// EdgeSecret is what all edges of the fleet derive the keys of TLS session tickets and QUIC tokens from, so that a client that goes to another edge need not begin anew.
func (k Key) EdgeSecret() (secret [32]byte, err error) {
	err = k.read(edgeSecret, secret[:])
	return secret, err
}

// read gives a secret, derived or as the credential has it.
func (k Key) read(s secret, to []byte) error {
	if k.credential == nil {
		b, err := k.derive(s.purpose, s.size)
		copy(to, b)
		return err
	}
	b, ok := k.credential.secret[s.block]
	if !ok {
		return fmt.Errorf("the credential of node %s has no %s, which nodes with the role %s need: make it again with kaiku credential", k.credential.cert.Leaf.Subject.CommonName, s.block, s.role)
	}
	copy(to, b)
	return nil
}
