package config

import (
	"context"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// Audit says which further checks a fleet file gets that could be loaded.
type Audit struct {
	Files   bool // look at the files that it names, as the operator's machine has them
	Serials bool // ask the fleet's name servers for the serials of their zones, to find those that would go backwards
	Strict  bool // what kaiku.service can't read or write is an error, not a warning
}

// Audit looks for what nodes don't refuse: references between zones that lead nowhere, and what the
// options ask for. Errors and warnings are added to those of the file; all errors are returned.
func (f *Fleet) Audit(ctx context.Context, zones []*geodns.Zone, opt Audit) error {
	f.auditZones(zones)
	if opt.Serials {
		f.checkSerials(ctx, zones)
	}
	if opt.Files {
		f.checkFiles()
		if opt.Strict {
			f.checkSandbox(f.errorf)
		} else {
			f.checkSandbox(f.warnf)
		}
	}
	return f.file.failure()
}
