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
			f.errorf(at, "a token needs a file")
		case files[f.path(t.File)]:
			f.errorf(at+".file", "%s is another token already", t.File)
		default:
			files[f.path(t.File)] = true
		}
		if len(t.Scopes) == 0 {
			f.errorf(at, "a token needs scopes: %s", strings.Join(edge.Scopes(), ", "))
		}
		for j, scope := range t.Scopes {
			if !slices.Contains(edge.Scopes(), scope) {
				f.errorf(fmt.Sprintf("%s.scopes[%d]", at, j), "scope %q is unknown: want %s", scope, strings.Join(edge.Scopes(), ", "))
			}
		}
		if t.Sites != nil && len(t.Sites) == 0 {
			f.errorf(at+".sites", "a token for no site: leave sites out for all")
		}
		for j, name := range t.Sites {
			if !slices.ContainsFunc(f.Sites, func(s Site) bool { return s.Name == name }) {
				f.errorf(fmt.Sprintf("%s.sites[%d]", at, j), "there is no site %s", name)
			}
		}
	}
}

// tokens reads the tokens that are good for some things. full is the one that is good for all.
func (f *Fleet) tokens(full string) ([]edge.Token, error) {
	var out []edge.Token
	seen := map[string]bool{full: full != ""}
	for _, t := range f.Secrets.Tokens {
		secret, err := readSecret(f.path(t.File))
		if err != nil {
			return nil, fmt.Errorf("read a token: %w", err)
		}
		if seen[secret] {
			return nil, fmt.Errorf("the token in %s is in another file too: each needs one of its own", t.File)
		}
		seen[secret] = true
		out = append(out, edge.Token{Secret: secret, Scopes: t.Scopes, Sites: t.Sites})
	}
	return out, nil
}
