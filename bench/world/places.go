// Package world simulates a small internet on one machine. Hosts are network namespaces, each with
// one TUN device. A router in this process carries packets between them, and delays each according
// to the distance between the two places.
//
// The router reads the packets that a host sends from its device. A packet waits for the sender's
// line if that has a rate. Then it crosses the link to the host that has the destination address,
// with the link's delay, jitter and loss. It waits for that host's line, and is written to that
// host's device. TCP, UDP and ICMP are the kernel's own. The router drops packets to unknown
// addresses, and never answers itself: a cut link is a black hole, as on a real ocean.
//
// The router knows neither devices nor namespaces. Its ports are anything that reads and writes
// whole packets, so its tests need neither root nor real time.
package world

import (
	"fmt"
	"math"
	"time"
)

// Place is the city of a host.
type Place string

// The places in the table of round trips.
const (
	Helsinki   Place = "Helsinki"
	NewYork    Place = "New York"
	Washington Place = "Washington"
	Singapore  Place = "Singapore"
)

// Location is a latitude and a longitude in degrees.
type Location struct{ Lat, Lon float64 }

// Locations returns the locations of the places.
func Locations() map[Place]Location {
	return map[Place]Location{Helsinki: {60.17, 24.94}, NewYork: {40.71, -74.01}, Washington: {38.91, -77.04},
		Singapore: {1.35, 103.82}}
}

// RoundTrip is the round-trip time between two cities.
type RoundTrip struct {
	A, B Place
	RTT  time.Duration
}

// Source says where the figures of RoundTrips come from.
const Source = "typical round trips between servers of these cities as public ping tables have them (WonderNetwork, wondernetwork.com/pings; the Azure and AWS tables of " +
	"latencies between regions), rounded, and typed in from memory rather than read from there on a day: they move by some per cent from month to month and from provider to provider"

// RoundTrips returns the table of round trips. A test checks that none is faster than light
// in fibre.
func RoundTrips() []RoundTrip {
	const ms = time.Millisecond
	return []RoundTrip{
		{Helsinki, NewYork, 105 * ms},
		{Helsinki, Washington, 112 * ms},
		{Helsinki, Singapore, 195 * ms},
		{NewYork, Washington, 8 * ms},
		{NewYork, Singapore, 235 * ms},
		{Washington, Singapore, 232 * ms},
	}
}

// InCity is the round-trip time between two machines in data centres of the same city.
const InCity = time.Millisecond

// Access is what a round trip takes longer for a client at home, with a fibre or a good cable line.
const Access = 3 * time.Millisecond

// Between returns the round-trip time between two places.
func Between(a, b Place) (time.Duration, error) {
	if a == b {
		return InCity, nil
	}
	for _, r := range RoundTrips() {
		if r.A == a && r.B == b || r.A == b && r.B == a {
			return r.RTT, nil
		}
	}
	return 0, fmt.Errorf("the table has no round trip between %s and %s", a, b)
}

const (
	earthRadius = 6371.0 // km
	fibreSpeed  = 200.0  // km per millisecond
)

// fastest returns the round-trip time of light in a fibre along the great circle.
func fastest(a, b Location) time.Duration {
	rad := func(deg float64) float64 { return deg * math.Pi / 180 }
	sin := func(x float64) float64 { return math.Sin(x) * math.Sin(x) }
	h := sin(rad(b.Lat-a.Lat)/2) + math.Cos(rad(a.Lat))*math.Cos(rad(b.Lat))*sin(rad(b.Lon-a.Lon)/2)
	km := 2 * earthRadius * math.Asin(math.Sqrt(h))
	return time.Duration(2 * km / fibreSpeed * float64(time.Millisecond))
}
