package config

import (
	"fmt"
	"os"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// adminTokens reads the tokens of the admin API that allow everything. It returns none if the fleet
// file names no file.
func (f *Fleet) adminTokens() ([]string, error) {
	if f.Secrets.AdminToken == "" {
		return nil, nil
	}
	return ReadTokens(f.Path(f.Secrets.AdminToken))
}

// ReadToken returns the token to use, which is the first one of its file.
func ReadToken(file string) (string, error) {
	tokens, err := ReadTokens(file)
	if err != nil {
		return "", err
	}
	return tokens[0], nil
}

// ReadTokens reads a file of tokens. The first token is the one to use. All are accepted.
func ReadTokens(file string) ([]string, error) {
	tokens, err := readSecrets(file)
	if err != nil {
		return nil, fmt.Errorf("read the admin token: %w", err)
	}
	return tokens, nil
}

// readSecrets reads a file of secrets. It has several during a rotation.
func readSecrets(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	list, err := fleet.SplitSecrets(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return list, nil
}

// ReadSecret reads a file with one line, which is the secret.
func ReadSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" || strings.ContainsAny(secret, "\r\n\x00") {
		return "", fmt.Errorf("%s: want one line", file)
	}
	return secret, nil
}

// Tokens reads the tokens of the admin listener at addr: those that allow everything, and those
// with scopes.
func (f *Fleet) Tokens(addr string) ([]purge.Token, error) {
	var out []purge.Token
	seen := map[string]bool{}
	add := func(secrets []string, file string, scopes, sites []string) error {
		for _, s := range secrets {
			if seen[s] {
				return fmt.Errorf("a token in %s stands twice, in that file or in another one: make every token different", file)
			}
			seen[s] = true
			out = append(out, purge.Token{Secret: s, Scopes: scopes, Sites: sites})
		}
		return nil
	}
	full, err := f.adminTokens()
	if err != nil {
		return nil, err
	}
	if err := add(full, f.Secrets.AdminToken, purge.Scopes(), nil); err != nil {
		return nil, err
	}
	for _, t := range f.Secrets.Tokens {
		secrets, err := readSecrets(f.Path(t.File))
		if err != nil {
			return nil, fmt.Errorf("read a token: %w", err)
		}
		if err := add(secrets, t.File, t.Scopes, t.Sites); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 && !admin.IsLoopback(addr) {
		return nil, fmt.Errorf("admin listener on %s: an address other than loopback needs a token (secrets.admin_token)", addr)
	}
	return out, nil
}
