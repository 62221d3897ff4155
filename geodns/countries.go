package geodns

import "net/netip"

// Countries finds the country of an address in an mmdb file of countries or cities. Edges use it
// for rules.
type Countries struct{ db *database }

// OpenCountries opens the file at path. It returns open if that is the same unchanged file; open
// may be nil.
func OpenCountries(path string, open *Countries) (*Countries, error) {
	var before *database
	if open != nil {
		before = open.db
	}
	db, err := openDatabase(path, before)
	if err != nil {
		return nil, err
	}
	if db == before {
		return open, nil
	}
	return &Countries{db}, nil
}

// Of returns the country of an address (ISO 3166-1 alpha-2), or "" if it is unknown.
func (c *Countries) Of(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return ""
	}
	result := c.db.reader.Lookup(addr)
	for _, path := range countryPaths() {
		var code any
		if result.DecodePath(&code, path...) != nil {
			continue
		}
		if code, ok := code.(string); ok && len(code) == 2 {
			return code
		}
	}
	return ""
}

// countryPaths are the paths at which databases have the code of a country.
func countryPaths() [][]any {
	return [][]any{paths("country", "iso_code"), paths("country_code"), paths("registered_country", "iso_code"),
		paths("country")}
}
