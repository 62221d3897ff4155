//go:build linux

package main

import "time"

// The lab writes jobs to its clients as JSON lines, to their standard input. A client answers each
// with one line on standard output.

// job is one job.
type job struct {
	ID    int
	Visit *visit `json:",omitempty"`
	Load  *load  `json:",omitempty"`
	Poll  *poll  `json:",omitempty"`
	Sweep *sweep `json:",omitempty"`
	Stop  int    `json:",omitempty"` // the ID of a job to end
}

// reply is the answer to a job.
type reply struct {
	ID     int
	Error  string `json:",omitempty"`
	Result any    `json:",omitempty"`
}

// visit is a look-up, a new connection, and one object, or a page: first its first path, then all
// others.
type visit struct {
	Proto string // h1, h2 or h3
	Host  string
	Paths []string
	Addr  string `json:",omitempty"` // used instead of a look-up
	Size  int    `json:",omitempty"` // of the first body; 0 means any
}

// timing has the times of a visit, in milliseconds since its start.
type timing struct {
	Lookup  float64 `json:"lookup"`  // the look-up is done
	Connect float64 `json:"connect"` // the connection is there, including TLS
	First   float64 `json:"first"`   // the first byte of the first body
	Last    float64 `json:"last"`    // the last byte of all
	Addr    string  `json:"addr"`
	Cache   string  `json:"cache,omitempty"` // first Cache-Status
	Err     string  `json:"err,omitempty"`
}

// load is visitors that come at a constant rate until it is stopped, whatever happens to earlier
// ones. Each looks up the name (in a cache that respects the TTL), opens a connection and requests
// one object.
type load struct {
	Proto string
	Host  string
	Paths []string // in turn
	Rate  int      // a second
	Retry bool     // try all addresses of the name, as browsers do
	Cold  bool     // each visitor asks the resolver
	At    string   `json:",omitempty"` // the resolver to use instead of the city's own
	Size  int
}

// sample is one visit of a load.
type sample struct {
	Start time.Time
	Took  float64 // ms
	Late  float64 // by how many ms it began late, because the machine was busy
	Addr  string  `json:",omitempty"`
	Cache string  `json:",omitempty"`
	Err   string  `json:",omitempty"`
}

// pageLimit is how long a visitor waits before a visit counts as failed.
const pageLimit = 5 * time.Second

// poll requests one object from one edge again and again, on one connection, and reads the version
// of each response.
type poll struct {
	Host, Path, Addr string
	Every            time.Duration
}

// seen is when a version was seen first and last.
type seen struct {
	Version     int
	First, Last time.Time
	N           int
}

// polled is the result of a poll.
type polled struct {
	Seen   []seen
	Errors int
}

// sweep requests many objects from an edge, numbered from 0, a few at a time, and reads the version
// of each.
type sweep struct {
	Host, Prefix, Addr string
	N                  int
	Wait               time.Duration // how long to retry until the edge answers
}

// swept is the result of a sweep: how many objects had each version, and when each version was seen
// last.
type swept struct {
	Versions map[int]seen
	Began    time.Time // when the edge first answered
	Errors   int
	Err      string // one of the errors
}
