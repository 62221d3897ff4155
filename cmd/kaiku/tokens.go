package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge"
)

// checkTokens finds what is wrong with the tokens, beyond what is in their files.
func (f *Fleet) checkTokens() {
	files := map[string]bool{f.path(f.Secrets.AdminToken): f.Secrets.AdminToken != ""}
	for i, t := range f.Secrets.Tokens {
		at := fmt.Sprintf("secrets.tokens[%d]", i)
		switch {
		case t.File == "":
			f.errorf(at+".file", "a token needs a file")
		case files[f.path(t.File)]:
			f.errorf(at+".file", "%s is another token already", t.File)
		default:
			files[f.path(t.File)] = true
		}
		if len(t.Scopes) == 0 {
			f.errorf(at+".scopes", "a token needs scopes: %s", strings.Join(edge.Scopes(), ", "))
		}
		for j, scope := range t.Scopes {
			if !slices.Contains(edge.Scopes(), scope) {
				f.errorf(fmt.Sprintf("%s.scopes[%d]", at, j), "scope %q is unknown: %s", scope, suggest(scope, edge.Scopes()))
			}
		}
		if t.Sites != nil && len(t.Sites) == 0 {
			f.errorf(at+".sites", "a token for no site: leave sites out for all")
		}
		for j, name := range t.Sites {
			f.checkSiteName(fmt.Sprintf("%s.sites[%d]", at, j), name)
		}
	}
}

// tokens reads the tokens of an admin listener: those that are good for all, and those that are
// good for some things.
func (f *Fleet) tokens(admin string) ([]edge.Token, error) {
	var out []edge.Token
	seen := map[string]bool{}
	add := func(secrets []string, file string, scopes, sites []string) error {
		for _, s := range secrets {
			if seen[s] {
				return fmt.Errorf("a token in %s is in that file or another one too: each needs to be one of its own", file)
			}
			seen[s] = true
			out = append(out, edge.Token{Secret: s, Scopes: scopes, Sites: sites})
		}
		return nil
	}
	full, err := f.adminTokens()
	if err != nil {
		return nil, err
	}
	if err := add(full, f.Secrets.AdminToken, edge.Scopes(), nil); err != nil {
		return nil, err
	}
	for _, t := range f.Secrets.Tokens {
		secrets, err := readSecrets(f.path(t.File))
		if err != nil {
			return nil, fmt.Errorf("read a token: %w", err)
		}
		if err := add(secrets, t.File, t.Scopes, t.Sites); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 && !edge.IsLoopback(admin) {
		return nil, fmt.Errorf("admin listener on %s: an address other than loopback needs a token (secrets.admin_token)", admin)
	}
	return out, nil
}
