package geodns

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Place is a point on the Earth, in degrees: latitude −90 to 90, north positive, and longitude −180 to 180, east positive.
type Place struct{ Lat, Lon float64 }

// check tells what is wrong with a place. NaN compares false with everything, hence the form of the conditions.
func (p Place) check() error {
	if !(p.Lat >= -90 && p.Lat <= 90) || !(p.Lon >= -180 && p.Lon <= 180) {
		return fmt.Errorf("place %v, %v: latitude goes from -90 to 90, longitude from -180 to 180", p.Lat, p.Lon)
	}
	return nil
}

// earthRadius is the mean radius in km. The Earth is no sphere: distances are right to 0.5 %.
const earthRadius = 6371.0088

// distance is the length of the great circle between two places in km, by the haversine formula, which is exact for near
// places where the plain cosine is not.
func (p Place) distance(q Place) float64 {
	const rad = math.Pi / 180
	sinLat := math.Sin((q.Lat - p.Lat) * rad / 2)
	sinLon := math.Sin((q.Lon - p.Lon) * rad / 2)
	h := sinLat*sinLat + math.Cos(p.Lat*rad)*math.Cos(q.Lat*rad)*sinLon*sinLon
	return 2 * earthRadius * math.Asin(math.Min(1, math.Sqrt(h)))
}

// ranked is a node that was chosen: its index in what was chosen from, and how far it is.
type ranked struct {
	index    int
	distance float64 // km; 0 where the client's place is not known
}

// choose orders the places of nodes by their distance from at, nearest first and the unhealthy left out. Where no node is
// healthy it orders them all, and says so. Nodes equally far stay in the order given, and all do where at is nil.
//
// It is the whole of the choice of an edge: a pure function of where the client is, where the nodes are and which are healthy.
func choose(at *Place, nodes []Place, healthy func(i int) bool) (order []ranked, allDown bool) {
	order = make([]ranked, 0, len(nodes))
	for i := range nodes {
		if healthy(i) {
			order = append(order, ranked{index: i})
		}
	}
	if len(order) == 0 && len(nodes) > 0 {
		allDown = true
		for i := range nodes {
			order = append(order, ranked{index: i})
		}
	}
	if at == nil {
		return order, allDown
	}
	for i := range order {
		order[i].distance = at.distance(nodes[order[i].index])
	}
	slices.SortStableFunc(order, func(a, b ranked) int { return cmp.Compare(a.distance, b.distance) })
	return order, allDown
}
