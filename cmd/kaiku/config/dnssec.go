package config

import (
	"errors"
	"fmt"
	"os"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// DNSSECKeys reads the keys of the signed zones, by zone name as in the fleet file. Besides an
// error, it returns the keys that can be used.
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

// ReadDNSSECKeys reads and checks a file of DNSSEC keys.
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

// checkDNSSEC reports a signed zone without a key file.
func (f *Fleet) checkDNSSEC(at string, z *Zone) {
	if z.DNSSEC != nil && z.DNSSEC.Key == "" {
		f.errorf(at+".dnssec", "want key: FILE, a file that kaiku dnssec keygen makes")
	}
}
