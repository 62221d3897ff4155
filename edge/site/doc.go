// Package site is what an edge serves: sites, and which of them a request is for.
//
// A Site has its hosts, the way to its origin and its rules for the cache. A Set finds the site of
// a host: the exact name first, then the wildcard one label above, then the site for any host. A
// Table holds the set that counts now. Reload replaces it under requests, so that each of them
// takes one Set and keeps it.
package site
