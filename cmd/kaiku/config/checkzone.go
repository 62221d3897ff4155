package config

import (
	"github.com/kaiku-cdn/kaiku/geodns"
)

// checkZone reports names that are both in the zone file and edge names.
func (f *Fleet) checkZone(z *Zone, zone *geodns.Zone, text *zoneFiles) {
	for i := range z.Edges {
		name := z.Edges[i].FQDN(z)
		if rrtype, line := zone.Address(name); line > 0 {
			f.file.errs = append(f.file.errs,
				text.note(line, "%s is an edge name of the fleet file, and has %s here: delete this line, because the edges answer for the name", name, rrtype))
		}
	}
}
