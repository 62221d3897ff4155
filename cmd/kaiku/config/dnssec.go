package config

import (
	"errors"
	"fmt"
	"os"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// DNSSECKeys reads the keys of the zones that are signed, by zone as the fleet file names it. Those
// that can be used are returned beside the error of the others.
func (f *Fleet) DNSSECKeys() (map[string]dnssec.Keys, error) {
	all := map[string]dnssec.Keys{}
	var errs []error
	for _, z := range f.GeoDNS.Zones {
		if z.DNSSEC == nil || z.DNSSEC.Key == "" {
			continue
		}
		keys, err := ReadDNSSECKeys(f.LocalFile(z.DNSSEC.Key))
		if err != nil {
			errs = append(errs, fmt.Errorf("the DNSSEC keys of %s: %w", z.Name, err))
			continue
		}
		all[z.Name] = keys
	}
	return all, errors.Join(errs...)
}

// ReadDNSSECKeys reads a file of DNSSEC keys.
func ReadDNSSECKeys(file string) (dnssec.Keys, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	keys, err := dnssec.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return keys, nil
}

// checkDNSSEC finds a zone that is to be signed without a key.
func (f *Fleet) checkDNSSEC(at string, z *Zone) {
	if z.DNSSEC != nil && z.DNSSEC.Key == "" {
		f.errorf(at+".dnssec", "want key: FILE, a file that kaiku dnssec keygen makes")
	}
}
