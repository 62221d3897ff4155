// Package config reads fleet.yaml, the one file that describes a fleet, and the zone files that it
// names.
//
// Load decodes the file strictly and checks all of it. Errors are, for example, an unknown key, an
// impossible value, an origin server that is an edge, or a zone with a record at an edge name. Load
// returns all errors at once, each with file, line and column, and the text of the line. What works
// but is hardly meant is a warning. Audit adds the checks that are possible only on the operator's
// machine. Read and Decode skip the checks.
//
// The methods of Fleet return what follows from the file: the settings of a node's edge with all
// defaults, its listeners, what name servers answer, the path of a file. This package runs no node.
// A Keeper keeps the last good copies of zones, so that a name server can start even if a zone file
// is damaged.
package config
