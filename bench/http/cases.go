package main

import (
	"fmt"
	"time"
)

// setup is the resources that the peers of a case get. Consecutive cases with the same setup use
// the same running peers.
type setup struct {
	Memory int // MiB for the RAM tier, for peers that have their own
	Disk   int // MiB
	// RAMHolds reports whether all objects are meant to fit in RAM.
	RAMHolds bool
	// Cores has the peer's cores, as taskset takes them. "" means one core, which the load does
	// not use.
	Cores string
	// Shield puts a second cache of the same kind between the peer and the origin. The cost of both
	// counts.
	Shield bool
}

var (
	inRAM  = setup{Memory: 2048, Disk: 4096, RAMHolds: true}
	onDisk = setup{Memory: 256, Disk: 6144}
	small  = setup{Memory: 128, Disk: 512, RAMHolds: true}
	huge   = setup{Memory: 6144, Disk: 8192, RAMHolds: true}
	vast   = setup{Memory: 256, Disk: 96 << 10} // an object may take up to a quarter of Disk
	both   = setup{Memory: 2048, Disk: 4096, RAMHolds: true, Cores: "0,1"}
	empty  = setup{Memory: 256, Disk: 4096}
	tiers  = setup{Memory: 2048, Disk: 4096, RAMHolds: true, Shield: true}
)

// testCase is one measurement.
type testCase struct {
	Name  string
	Title string
	Setup setup
	Proto string // http1, tls1, http2 or http3
	Size  int64  // of an object
	Count int    // number of different objects
	Conns int
	// Streams is the number of concurrent requests on a connection.
	Streams int
	How     how
	// Fields has the header fields of each request, separated by |.
	Fields string
	Status int
	Body   int64 // bytes of each response
	// Peers has the peers that support the case, in the order of the report.
	Peers []string
}

// how is the kind of load.
type how string

const (
	each  how = "each"  // hits: all objects, in turn
	fresh how = "new"   // misses: each request for another object
	cold  how = "cold"  // as many misses as fill the peer with -fill MiB
	pass  how = "pass"  // misses that may not be stored, each for another object
	parts how = "range" // 64 KiB ranges of one object
	idle  how = "idle"  // connections that stay idle
	churn how = "churn" // hits, while other objects come and go
	slow  how = "slow"  // clients that read one large object slowly
	page  how = "page"  // a browser loads a page
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30

	idleConns = 10_000
	slowConns = 1_000
	// churnRate is the number of new 1 MiB objects a second in the background.
	churnRate = 50
)

var (
	everyone  = []string{"kaiku", "nginx", "varnish", "trafficserver", "caddy"}
	caches    = []string{"kaiku", "nginx", "varnish", "trafficserver"}
	overTLS   = []string{"kaiku", "nginx", "trafficserver", "caddy"}
	overQUIC  = []string{"kaiku", "caddy"}
	inBrowser = []string{"kaiku", "nginx", "caddy"}
	sizeNames = map[int64]string{200: "200 bytes", kib: "1 KiB", 8 * kib: "8 KiB", 32 * kib: "32 KiB",
		64 * kib: "64 KiB", mib: "1 MiB",
		gib: "1 GiB", 20 * gib: "20 GiB"}
)

// allCases returns all cases in the order in which they run. With before, another version of Kaiku
// is one of the peers in every case.
func allCases(before bool) []testCase {
	cases := namedCases()
	for i := range cases {
		if before {
			cases[i].Peers = append([]string{"before"}, cases[i].Peers...)
		}
	}
	return cases
}

func namedCases() []testCase {
	hit := func(proto, title string, size int64, count, conns, streams int, peers []string) testCase {
		return testCase{Name: fmt.Sprintf("%s/hit-%d", proto, size),
			Title: fmt.Sprintf("%s, hits of %s", title, sizeNames[size]), Setup: inRAM, Proto: proto,
			Size: size, Count: count, Conns: conns, Streams: streams, How: each, Status: 200, Body: size, Peers: peers}
	}
	notModified := hit("http1", "", kib, 100, 16, 1, everyone)
	notModified.Name, notModified.Title, notModified.Status, notModified.Body = "http1/304",
		"HTTP/1.1, 304 Not Modified", 304, 0
	notModified.Fields = "If-Modified-Since: " + modified.Format("Mon, 02 Jan 2006 15:04:05 GMT") + "|"
	many := hit("http1", "", 8*kib, 100_000, 16, 1, caches)
	many.Name, many.Title = "http1/100k", "HTTP/1.1, hits of 100,000 objects of 8 KiB"
	miss := func(name, title string, with setup, size int64, peers []string) testCase {
		return testCase{Name: "http1/" + name, Title: "HTTP/1.1, " + title, Setup: with, Proto: "http1", Size: size,
			Count: 1, Conns: 16, Streams: 1, How: fresh, Status: 200, Body: size, Peers: peers}
	}
	passed := miss("pass", "8 KiB that may not be stored", inRAM, 8*kib, caches)
	passed.How = pass
	grow := func(name, title string, with setup, count, conns int) testCase {
		c := hit("http1", "", kib, count, conns, 1, []string{"kaiku", "nginx"})
		c.Name, c.Title, c.Setup = "growth/"+name, "growth: hits of 1 KiB, "+title, with
		return c
	}
	return []testCase{
		hit("http3", "HTTP/3", kib, 100, 8, 8, overQUIC),
		hit("http3", "HTTP/3", mib, 64, 4, 2, overQUIC),
		hit("http1", "HTTP/1.1", kib, 100, 16, 1, everyone),
		hit("http1", "HTTP/1.1", 32*kib, 100, 16, 1, everyone),
		hit("http1", "HTTP/1.1", mib, 64, 8, 1, everyone),
		notModified,
		hit("tls1", "HTTP/1.1 over TLS", kib, 100, 16, 1, overTLS),
		hit("http2", "HTTP/2", kib, 100, 8, 8, overTLS),
		hit("http2", "HTTP/2", 32*kib, 100, 8, 4, overTLS),
		hit("http2", "HTTP/2", mib, 64, 4, 2, overTLS),
		many,
		miss("miss-200", "misses of 200 bytes", inRAM, 200, caches),
		miss("miss", "misses of 8 KiB", inRAM, 8*kib, caches),
		miss("miss-1048576", "misses of 1 MiB", inRAM, mib, caches),
		passed,
		miss("miss-shield", "misses of 8 KiB through a second cache", tiers, 8*kib, []string{"kaiku", "nginx"}),
		coldStart(),
		{Name: "http1/disk", Title: "HTTP/1.1, 2 GiB of 1 MiB objects, 256 MiB of RAM tier", Setup: onDisk,
			Proto: "http1", Size: mib, Count: 2048, Conns: 8, Streams: 1,
			How: each, Status: 200, Body: mib, Peers: caches},
		{Name: "tls1/disk", Title: "HTTP/1.1 over TLS, 2 GiB of 1 MiB objects, 256 MiB of RAM tier", Setup: onDisk,
			Proto: "tls1", Size: mib, Count: 2048, Conns: 8, Streams: 1,
			How: each, Status: 200, Body: mib, Peers: []string{"kaiku", "nginx", "trafficserver"}},
		{Name: "http1/range", Title: "HTTP/1.1, 64 KiB of an object of 1 GiB", Setup: onDisk, Proto: "http1", Size: gib,
			Count: 1, Conns: 16, Streams: 1,
			How: parts, Status: 206, Body: 64 * kib, Peers: caches},
		{Name: "http1/churn", Title: fmt.Sprintf("HTTP/1.1, hits of 32 KiB while %d MiB/s come and go", churnRate),
			Setup: small, Proto: "http1", Size: 32 * kib, Count: 100,
			Conns: 16, Streams: 1, How: churn, Status: 200, Body: 32 * kib, Peers: caches},
		{Name: "http1/idle", Title: "memory of an idle connection",
			Setup: setup{Memory: 256, Disk: 2048, RAMHolds: true}, Proto: "http1", Size: kib, Count: 100,
			Conns: idleConns,
			How:   idle, Status: 200, Body: kib, Peers: caches},
		{Name: "http2/idle", Title: "memory of an idle connection of HTTP/2 over TLS",
			Setup: setup{Memory: 256, Disk: 2048, RAMHolds: true}, Proto: "http2", Size: kib, Count: 100,
			Conns: idleConns,
			How:   idle, Status: 200, Body: kib, Peers: overTLS},
		{Name: "http1/slow", Title: "memory of each of 1,000 slow clients of an object of 20 GiB", Setup: vast,
			Proto: "http1", Size: 20 * gib, Count: 1, Conns: slowConns, How: slow, Status: 206,
			Peers: []string{"kaiku"}},
		pageLoad("tls1", "HTTP/1.1", inBrowser),
		pageLoad("http2", "HTTP/2", inBrowser),
		pageLoad("http3", "HTTP/3", overQUIC),
		grow("conns-1", "1 connection", inRAM, 100, 1),
		grow("conns-100", "100 connections", inRAM, 100, 100),
		grow("conns-10000", "10,000 connections", inRAM, 100, idleConns),
		grow("objects-1e3", "1,000 objects", inRAM, 1_000, 16),
		grow("objects-1e5", "100,000 objects", inRAM, 100_000, 16),
		grow("objects-1e6", "1,000,000 objects", huge, 1_000_000, 16),
		grow("cores-2", "on both cores, which the load needs too", both, 100, 16),
	}
}

// pageLoad returns a case in which a browser loads a page.
func pageLoad(proto, title string, peers []string) testCase {
	return testCase{Name: "page/" + proto, Setup: inRAM, Proto: proto, Size: 20 * kib, Count: pagePictures, How: page,
		Title: fmt.Sprintf("a page with %d pictures in Chromium, %s, %v each way", pagePictures, title, pageDelay),
		Conns: 1, Streams: 1, Status: 200, Body: 20 * kib, Peers: peers}
}

// coldStart returns the case that fills empty peers.
func coldStart() testCase {
	return testCase{Name: "http1/cold", Title: "HTTP/1.1, a cold start: fill with objects of 8 KiB", Setup: empty,
		Proto: "http1", Size: 8 * kib, Count: 1, Conns: 16, Streams: 1, How: cold, Status: 200, Body: 8 * kib,
		Peers: caches}
}

// misses reports whether each request of a case reaches the origin.
func (c *testCase) misses() bool { return c.How == fresh || c.How == pass || c.How == cold }

// sample is the result of one round of one peer.
type sample struct {
	Requests int     `json:"requests"`
	Seconds  float64 `json:"seconds"`
	CPU      float64 `json:"cpu_us_per_request"` // user and system time
	Rate     float64 `json:"requests_per_second"`
	Busy     float64 `json:"busy_percent"` // CPU time as a percentage of one core
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	// Origin is the number of requests that reached the origin.
	Origin int64 `json:"origin_requests"`
	RSS    int64 `json:"rss_bytes"`
	// Anonymous is the part of RSS that no file backs.
	Anonymous int64 `json:"anonymous_bytes"`
	// Conn is the memory of one connection in bytes, in the cases that measure it: what an idle
	// connection adds to RSS, or what a slow client adds to Anonymous.
	Conn float64 `json:"bytes_per_idle_connection,omitempty"`
	// Paint and Last are for the page the times to the first paint and to the last picture.
	Paint float64 `json:"first_paint_us,omitempty"`
	Last  float64 `json:"last_picture_us,omitempty"`
}

// outcome is what the load generator reports.
type outcome struct {
	Requests int
	Bytes    int64 // received, with header blocks if the load generator counts them
	Took     time.Duration
	P50, P99 time.Duration
}
