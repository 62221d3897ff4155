package fleet

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// SplitSecrets parses the text of a file of secrets, one a line. The first is used and all are
// accepted, so one can replace another without an interruption. White space around a secret, blank
// lines, and lines that begin with # are ignored.
func SplitSecrets(text []byte) ([]string, error) {
	var out []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if strings.ContainsFunc(line, unicode.IsControl) {
			return nil, errors.New("a line has a control character: want one secret a line, as text")
		}
		out = append(out, line)
	}
	if out == nil {
		return nil, errors.New("no secret: want one secret a line")
	}
	return out, nil
}

// secret is a kind of secret that all nodes with a role share. It is derived from the fleet key.
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

// CookieSecrets returns the secrets with which all name servers make DNS cookies (RFC 7873). As
// with all derived secrets, the first is used and all are accepted.
func (k Key) CookieSecrets() ([][16]byte, error) {
	list, err := k.read(cookieSecret)
	out := make([][16]byte, len(list))
	for i, s := range list {
		out[i] = [16]byte(s)
	}
	return out, err
}

// CertificateSecrets returns the secrets with which all edges encrypt values of the Vault.
func (k Key) CertificateSecrets() ([][32]byte, error) { return k.read32(certificateSecret) }

// EdgeSecrets returns the secrets from which all edges derive the keys of TLS session tickets and
// QUIC tokens. So a client can resume a session at another edge.
func (k Key) EdgeSecrets() ([][32]byte, error) { return k.read32(edgeSecret) }

func (k Key) read32(s secret) ([][32]byte, error) {
	list, err := k.read(s)
	out := make([][32]byte, len(list))
	for i, b := range list {
		out[i] = [32]byte(b)
	}
	return out, err
}

// read returns the secrets of a kind, from the credential or derived from the key.
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
