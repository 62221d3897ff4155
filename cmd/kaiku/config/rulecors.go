package config

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/edge/rules"
)

// CORS lets pages of other origins read responses.
type CORS struct {
	Origins     []string `yaml:"origins"`
	Methods     []string `yaml:"methods"`
	Headers     []string `yaml:"headers"`
	Expose      []string `yaml:"expose"`
	Credentials bool     `yaml:"credentials"`
	MaxAge      Duration `yaml:"max_age"`
}

func (m *ruleMaker) cors(at string, c *CORS) *rules.CORS {
	out := &rules.CORS{Origins: slices.Clone(c.Origins), Methods: c.Methods, Headers: c.Headers, Expose: c.Expose,
		Credentials: c.Credentials, MaxAge: time.Duration(c.MaxAge)}
	for key, list := range map[string][]string{"methods": c.Methods, "headers": c.Headers, "expose": c.Expose} {
		for i, name := range list {
			if !headerRE.MatchString(name) {
				m.errorf(fmt.Sprintf("%s.%s[%d]", at, key, i), "%q is not a name", name)
			}
		}
	}
	for i, method := range c.Methods {
		if method != strings.ToUpper(method) || method == http.MethodOptions {
			m.errorf(fmt.Sprintf("%s.methods[%d]", at, i), "%q: want GET, POST or another method in upper case", method)
		}
	}
	if err := out.Check(); err != nil {
		m.errorf(at+".origins", "%v", err)
	}
	return out
}

func (m *ruleMaker) security(at, preset string) *rules.Fields {
	f, ok := rules.SecurityHeaders(preset)
	if !ok {
		m.errorf(at, "%q is unknown: %s", preset, words.Suggest(preset, []string{"basic", "strict"}))
	}
	return f
}
