// Package capacity computes what a fleet needs for a number of users: how many edges each region
// needs and what limits them, what hit ratio to expect, and how many requests reach the origin.
//
// The costs of requests come from a measurement (Costs). The hit ratio comes from a run of the
// store's own policy (storage.Simulation) over requests of a given popularity, or over those of an
// access log. Everything else is arithmetic, and each step of it is in Plan.Steps.
package capacity
