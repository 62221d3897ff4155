package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/edge/purge"
)

// checkTokens checks the tokens, but not the content of their files.
func (f *Fleet) checkTokens() {
	files := map[string]bool{f.Path(f.Secrets.AdminToken): f.Secrets.AdminToken != ""}
	for i, t := range f.Secrets.Tokens {
		at := fmt.Sprintf("secrets.tokens[%d]", i)
		switch {
		case t.File == "":
			f.errorf(at+".file", "a token needs a file")
		case files[f.Path(t.File)]:
			f.errorf(at+".file", "%s is already the file of another token", t.File)
		default:
			files[f.Path(t.File)] = true
		}
		if len(t.Scopes) == 0 {
			f.errorf(at+".scopes", "a token needs scopes: %s", strings.Join(purge.Scopes(), ", "))
		}
		for j, scope := range t.Scopes {
			if !slices.Contains(purge.Scopes(), scope) {
				f.errorf(fmt.Sprintf("%s.scopes[%d]", at, j), "scope %q is unknown: %s", scope,
					words.Suggest(scope, purge.Scopes()))
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
