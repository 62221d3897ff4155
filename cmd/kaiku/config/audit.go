package config

import (
	"context"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// Audit selects checks that go beyond those of Load.
type Audit struct {
	Files   bool // check the files that the fleet file names, on the operator's machine
	Serials bool // query the name servers for the serials of their zones, to find serials that would go backwards
	Strict  bool // report what kaiku.service can't read or write as an error, not a warning
}

// Audit finds mistakes that nodes don't refuse: dangling references between zones, and what the
// options select. It adds errors and warnings to those of the file, and returns all errors.
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
