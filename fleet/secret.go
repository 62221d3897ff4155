package fleet

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// SplitSecrets reads the text of a file of secrets: one a line, the first to be used and all to be
// accepted, so that one can replace another without a moment in which either is refused. White
// space around a secret, blank lines and lines that begin with # don't count.
func SplitSecrets(text []byte) ([]string, error) {
	var out []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if strings.ContainsFunc(line, unicode.IsControl) {
			return nil, errors.New("a line has a control character: want text, a secret a line")
		}
		out = append(out, line)
	}
	if out == nil {
		return nil, errors.New("there is no secret: want one on a line")
	}
	return out, nil
}

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

// CookieSecrets are what all name servers of the fleet make DNS cookies with (RFC 7873). As of all
// derived secrets, the first is used and all are accepted.
func (k Key) CookieSecrets() ([][16]byte, error) {
	list, err := k.read(cookieSecret)
	out := make([][16]byte, len(list))
	for i, s := range list {
		out[i] = [16]byte(s)
	}
	return out, err
}

// CertificateSecrets are what all edges of the fleet encrypt with what is in the Vault.
func (k Key) CertificateSecrets() ([][32]byte, error) { return k.read32(certificateSecret) }

// EdgeSecrets are what all edges of the fleet derive the keys of TLS session tickets and QUIC
// tokens from, so that a client that goes to another edge need not begin anew.
func (k Key) EdgeSecrets() ([][32]byte, error) { return k.read32(edgeSecret) }

func (k Key) read32(s secret) ([][32]byte, error) {
	list, err := k.read(s)
	out := make([][32]byte, len(list))
	for i, b := range list {
		out[i] = [32]byte(b)
	}
	return out, err
}

// read gives a secret, derived from each of the key or as the credential has it.
func (k Key) read(s secret) ([][]byte, error) {
	if k.credential == nil {
		return k.derive(s.purpose, s.size)
	}
	list := k.credential.secrets[s.block]
	if list == nil {
		return nil, fmt.Errorf("the credential of node %s has no %s, which nodes with the role %s need: make it again with kaiku credential", k.credential.cert.Leaf.Subject.CommonName, s.block, s.role)
	}
	return list, nil
}
