// Package config reads fleet.yaml, the one file that describes a fleet, and the zone files that it
// names.
//
// Load decodes the file strictly and checks all of it: a key that no type has, a value that can't
// be, an origin that is an edge, a zone that would answer for an edge name. It returns all errors
// at once, each with file, line and column, and the line itself. What works but is hardly meant is
// a warning. Audit adds what only the operator's machine can find out. Read and Decode leave the
// checks out.
//
// The methods of Fleet answer what follows from the file: how a node runs its edge with all
// defaults, where it listens, what name servers answer, where a file is. Nothing here runs a node.
// A Keeper keeps the last good copies of zones, so that a name server starts though a zone file is
// damaged.
package config
