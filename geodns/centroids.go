package geodns

import (
	_ "embed"
	"fmt"
	"strings"
)

// centroidTable has a line for each country: its ISO 3166-1 alpha-2 code, and the latitude and
// longitude of the centre of its population, in degrees.
//
// The author estimated the centres from general knowledge of where each country's people and
// networks are. They are not the middles of areas: the middle of Russia is in Siberia, and its
// users are around Moscow. An error of a few hundred kilometres is small beside the distance
// between two edges. Config.GeoIP and Config.Locate are more precise. The table has every code that
// the embedded network table returns, and XK. ZZ, which means no country, has no place.
//
//go:embed centroids.txt
var centroidTable string

// countries has the centre of each country's population by its ISO 3166-1 alpha-2 code.
type countries map[string]Place

// centroids reads centroidTable.
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
