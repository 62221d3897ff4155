//go:build linux

package main

import "time"

// What the lab has its clients do, as JSON lines on their standard input; each is answered by one
// line on standard output.

// job is one of these.
type job struct {
	ID    int
	Visit *visit `json:",omitempty"`
	Load  *load  `json:",omitempty"`
	Poll  *poll  `json:",omitempty"`
	Sweep *sweep `json:",omitempty"`
	Stop  int    `json:",omitempty"` // the ID of a job to end
}

// reply is the answer.
type reply struct {
	ID     int
	Error  string `json:",omitempty"`
	Result any    `json:",omitempty"`
}

// visit is a look-up, a new connection, and one object, or a page: the first path, and when that is
// there, all others.
type visit struct {
	Proto string // h1, h2 or h3
	Host  string
	Paths []string
	Addr  string `json:",omitempty"` // asked without a look-up
	Size  int    `json:",omitempty"` // of the first body; 0: any
}

// timing is how a visit went; times in milliseconds since its begin.
type timing struct {
	Lookup  float64 `json:"lookup"`  // the name was known
	Connect float64 `json:"connect"` // and a connection there, TLS included
	First   float64 `json:"first"`   // the first byte of the first body
	Last    float64 `json:"last"`    // the last byte of all
	Addr    string  `json:"addr"`
	Cache   string  `json:"cache,omitempty"` // the first Cache-Status
	Err     string  `json:"err,omitempty"`
}

// load is visitors that come at a constant rate until it is stopped, whatever happens to those
// before them. Each looks the name up (in a cache that honours its TTL), makes a connection and
// asks for one object.
type load struct {
	Proto string
	Host  string
	Paths []string // in turn
	Rate  int      // a second
	Retry bool     // over all addresses that the name has, as browsers do
	Cold  bool     // each visitor asks the resolver
	At    string   `json:",omitempty"` // another resolver
	Size  int
}

// sample is one of these visits.
type sample struct {
	Start time.Time
	Took  float64 // ms
	Late  float64 // ms that it began too late, as the machine was busy
	Addr  string  `json:",omitempty"`
	Cache string  `json:",omitempty"`
	Err   string  `json:",omitempty"`
}

// pageLimit is how long a visitor waits before the page has failed.
const pageLimit = 5 * time.Second

// poll asks one edge for one object again and again, over a connection that stays, and reads which
// version it is given.
type poll struct {
	Host, Path, Addr string
	Every            time.Duration
}

// seen is when a version was first and last there.
type seen struct {
	Version     int
	First, Last time.Time
	N           int
}

// polled is what a poll has seen.
type polled struct {
	Seen   []seen
	Errors int
}

// sweep asks an edge for many objects, from 0 up, a few at a time, and reads the version of each.
type sweep struct {
	Host, Prefix, Addr string
	N                  int
	Wait               time.Duration // how long to try until the edge answers
}

// swept is which versions the objects had: of how many objects each, and when it was last there.
type swept struct {
	Versions map[int]seen
	Began    time.Time // when the edge first answered
	Errors   int
	Err      string // one of them
}
