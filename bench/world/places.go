// Package world is a small internet on one machine: hosts are network namespaces, each with one TUN
// device, and a router in this process carries the packets between them, each as late as the
// distance between the two places makes it.
//
// A packet that a host sends is read from its device, waits for the host's line if that has a rate,
// crosses the link to the host that has its destination (delay, jitter, loss, cuts), waits for that
// host's line, and is written to its device. What the kernel does above that (TCP, UDP, ICMP) is
// the real thing. The router drops what nobody has the address of, and answers nothing itself: a
// cut link is a black hole, as it is on a real ocean.
//
// The router knows no devices and no namespaces: its ports are anything that reads and writes whole
// packets, so that its tests need neither root nor time.
package world

import (
	"fmt"
	"math"
	"time"
)

// Place is where a host stands.
type Place string

// The places that the table of delays has.
const (
	Helsinki   Place = "Helsinki"
	NewYork    Place = "New York"
	Washington Place = "Washington"
	Singapore  Place = "Singapore"
)

// Location is a latitude and a longitude in degrees.
type Location struct{ Lat, Lon float64 }

// Locations tells where the places are.
func Locations() map[Place]Location {
	return map[Place]Location{Helsinki: {60.17, 24.94}, NewYork: {40.71, -74.01}, Washington: {38.91, -77.04},
		Singapore: {1.35, 103.82}}
}

// RoundTrip is the time of a ping between two cities.
type RoundTrip struct {
	A, B Place
	RTT  time.Duration
}

// Source is where the figures of RoundTrips are from.
const Source = "typical round trips between servers of these cities as public ping tables have them (WonderNetwork, wondernetwork.com/pings; the Azure and AWS tables of " +
	"latencies between regions), rounded, and typed in from memory rather than read from there on a day: they move by some per cent from month to month and from provider to provider"

// RoundTrips is the table of delays. A test holds each figure to what light in fibre can do.
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

// InCity is a round trip between two machines in data centres of one city.
const InCity = time.Millisecond

// Access is what a round trip takes longer for somebody at home, behind a fibre or a good cable
// line.
const Access = 3 * time.Millisecond

// Between gives the round trip between two places.
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

// fastest is the round trip that light in a fibre along the great circle would have.
func fastest(a, b Location) time.Duration {
	rad := func(deg float64) float64 { return deg * math.Pi / 180 }
	sin := func(x float64) float64 { return math.Sin(x) * math.Sin(x) }
	h := sin(rad(b.Lat-a.Lat)/2) + math.Cos(rad(a.Lat))*math.Cos(rad(b.Lat))*sin(rad(b.Lon-a.Lon)/2)
	km := 2 * earthRadius * math.Asin(math.Sqrt(h))
	return time.Duration(2 * km / fibreSpeed * float64(time.Millisecond))
}
