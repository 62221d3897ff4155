package geodns

import (
	"fmt"
	"math"
	"net/netip"
)

// Place is a point on the Earth, in degrees: latitude −90 to 90, north positive, and longitude −180
// to 180, east positive.
type Place struct{ Lat, Lon float64 }

// check tells what is wrong with a place. NaN compares false with everything, hence the form of the
// conditions.
func (p Place) check() error {
	if !(p.Lat >= -90 && p.Lat <= 90) || !(p.Lon >= -180 && p.Lon <= 180) {
		return fmt.Errorf("place %v, %v: latitude goes from -90 to 90, longitude from -180 to 180", p.Lat, p.Lon)
	}
	return nil
}

// earthRadius is the mean radius in km. The Earth is no sphere: distances are right to 0.5 %.
const earthRadius = 6371.0088

// Distance is the length of the great circle between two places in km, by the haversine formula,
// which is exact for near places where the plain cosine is not.
func (p Place) Distance(q Place) float64 {
	const rad = math.Pi / 180
	sinLat := math.Sin((q.Lat - p.Lat) * rad / 2)
	sinLon := math.Sin((q.Lon - p.Lon) * rad / 2)
	h := sinLat*sinLat + math.Cos(p.Lat*rad)*math.Cos(q.Lat*rad)*sinLon*sinLon
	return 2 * earthRadius * math.Asin(math.Min(1, math.Sqrt(h)))
}

// Country is where the embedded table has an address: the ISO 3166-1 alpha-2 code of the country,
// and where its people live. ok is false where the table has no country for it.
func Country(addr netip.Addr) (code string, at Place, ok bool) {
	if !addr.IsValid() {
		return "", at, false
	}
	found := centroids().find(addr.Unmap().WithZone(""), &at)
	return found.country, at, found.place != nil
}
