// Package site describes what an edge serves: its sites, and which of them a request is for.
//
// A Site has its hosts, the route to its origin, and its rules for the cache. A Set finds the site
// of a host: by the exact name first, then by the wildcard one label above, then the site for any
// host. A Table holds the current Set. A reload replaces the Set while requests are under way, so
// each request takes one Set and keeps it.
package site
