package geodns

import (
	_ "embed"
	"fmt"
	"strings"
)

// centroidTable has one line per country: its ISO 3166-1 alpha-2 code, and the latitude and
// longitude of the centre of its population, in degrees.
//
// The author estimated the centres from general knowledge of where each country's people and
// networks are. They are not the centres of areas: the centre of Russia's area is in Siberia, but
// its users are around Moscow. An error of a few hundred kilometres is small compared with the
// distance between two edges. Config.GeoIP and Config.Locate are more precise. The table has XK and
// every code that the embedded network table returns, except ZZ, which means that there is no
// country.
//
//go:embed centroids.txt
var centroidTable string

// countries maps an ISO 3166-1 alpha-2 code to the centre of the country's population.
type countries map[string]Place

// centroids parses centroidTable.
func centroids() countries {
	table := countries{}
	for line := range strings.Lines(centroidTable) {
		var country string
		var at Place
		if _, err := fmt.Sscan(line, &country, &at.Lat, &at.Lon); err != nil {
			panic(fmt.Sprintf("centroids.txt: %q: %v", line, err))
		}
		table[country] = at
	}
	return table
}
