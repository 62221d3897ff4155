package geodns

import (
	"fmt"
	"math"
	"net/netip"
)

// Place is a point on the Earth. Lat is its latitude in degrees, -90 to 90, north positive. Lon is
// its longitude in degrees, -180 to 180, east positive.
type Place struct{ Lat, Lon float64 }

// check returns an error if the place is out of range. The conditions are written so that NaN,
// which compares false with everything, is an error.
func (p Place) check() error {
	if !(p.Lat >= -90 && p.Lat <= 90) || !(p.Lon >= -180 && p.Lon <= 180) {
		return fmt.Errorf("place %v, %v: latitude goes from -90 to 90, longitude from -180 to 180", p.Lat, p.Lon)
	}
	return nil
}

// earthRadius is the mean radius of the Earth in km. The Earth is not a sphere, so distances have
// an error of up to 0.5 %.
const earthRadius = 6371.0088

// Distance returns the great-circle distance between two places in km. It uses the haversine
// formula, which stays precise for short distances.
func (p Place) Distance(q Place) float64 {
	const rad = math.Pi / 180
	sinLat := math.Sin((q.Lat - p.Lat) * rad / 2)
	sinLon := math.Sin((q.Lon - p.Lon) * rad / 2)
	h := sinLat*sinLat + math.Cos(p.Lat*rad)*math.Cos(q.Lat*rad)*sinLon*sinLon
	return 2 * earthRadius * math.Asin(math.Min(1, math.Sqrt(h)))
}

// Country returns the country of an address in the embedded table, as an ISO 3166-1 alpha-2 code,
// and the centre of the country's population. ok is false if the table has no country for the
// address.
func Country(addr netip.Addr) (code string, at Place, ok bool) {
	if !addr.IsValid() {
		return "", at, false
	}
	found := centroids().find(addr.Unmap().WithZone(""), &at)
	return found.country, at, found.place != nil
}
