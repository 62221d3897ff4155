package config

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"

	"github.com/kaiku-cdn/kaiku/edge/rules"
)

// ErrorPages are pages for browsers in place of the bodies of errors.
type ErrorPages struct {
	Files  map[ErrorStatus]string `yaml:"files"`  // HTML
	Origin bool                   `yaml:"origin"` // for errors of the origin too
}

// ErrorStatus is a status of HTTP from 400 to 599.
type ErrorStatus int

// UnmarshalText parses a status.
func (s *ErrorStatus) UnmarshalText(b []byte) error {
	n, err := strconv.Atoi(string(b))
	if err != nil || n < 400 || n > 599 {
		return notForm("%q is not the status of an error: want 400 to 599", b)
	}
	*s = ErrorStatus(n)
	return nil
}

// maxErrorPage is the largest size of an error page in bytes. Every edge keeps it in memory.
const maxErrorPage = 256 << 10

// errorPages makes the error pages of a rule.
func (m *ruleMaker) errorPages(at string, e *ErrorPages) *rules.ErrorPages {
	if e == nil {
		return nil
	}
	if len(e.Files) == 0 {
		m.errorf(at+".files", "want files by status, as { 404: errors/404.html }")
	}
	out := &rules.ErrorPages{Pages: map[int][]byte{}, Origin: e.Origin}
	for _, status := range slices.Sorted(maps.Keys(e.Files)) {
		file, p := e.Files[status], fmt.Sprintf("%s.files.%d", at, status)
		switch {
		case file == "":
			m.errorf(p, "want the name of a file")
		case m.read != nil:
			text, err := m.read(file)
			if err == nil {
				err = checkErrorPageText(text)
			}
			if err != nil {
				m.errorf(p, "read %s: %v", file, err)
			}
			out.Pages[int(status)] = text
		}
	}
	return out
}

func checkErrorPageText(text []byte) error {
	switch {
	case len(text) == 0:
		return fmt.Errorf("the page is empty")
	case len(text) > maxErrorPage:
		return fmt.Errorf("the page has %d bytes: want at most %d", len(text), maxErrorPage)
	}
	return nil
}

// checkErrorPage returns what is wrong with an error page, or nil.
func checkErrorPage(file string) error {
	text, err := os.ReadFile(file)
	if err == nil {
		err = checkErrorPageText(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

var countryRE = regexp.MustCompile(`^[A-Z]{2}$`)

// checkCountries reports what is wrong with the countries in a site's rules. Without a database
// there are none.
func (f *Fleet) checkCountries(site string, s *Site) {
	for i, r := range s.Rules {
		at := fmt.Sprintf("%s.rules[%d].match.country", site, i)
		if len(r.Match.Country) > 0 && f.GeoDNS.GeoIP == "" {
			f.errorf(at, "the edges have no database of countries: set geodns.geoip to an mmdb file, such as GeoLite2-Country")
		}
		for j, code := range r.Match.Country {
			if !countryRE.MatchString(code) {
				f.errorf(fmt.Sprintf("%s[%d]", at, j),
					"%q is not a country: want two capital letters, such as FI (ISO 3166-1)",
					code)
			}
		}
	}
}

// UsesCountries reports whether a rule looks at the country of clients.
func (f *Fleet) UsesCountries() bool {
	return slices.ContainsFunc(f.Sites, func(s Site) bool {
		return slices.ContainsFunc(s.Rules, func(r Rule) bool { return len(r.Match.Country) > 0 })
	})
}
