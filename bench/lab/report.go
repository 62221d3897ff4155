//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/promise"
	"github.com/kaiku-cdn/kaiku/bench/world"
)

// report has all measurements.
type report struct {
	Time         string           `json:"time"`
	Short        bool             `json:"short"`
	TTL          time.Duration    `json:"ttl"`
	Disconnected time.Duration    `json:"max_disconnected"`
	Together     time.Duration    `json:"together"` // until the fleet was ready for the first time
	TCP          string           `json:"tcp"`      // congestion control
	Cases        []feltCase       `json:"cases"`
	ColdName     []timing         `json:"cold_name"`  // hits from Finland while the resolver doesn't have the name
	KnownName    []timing         `json:"known_name"` // and while it does
	Faults       []faultResult    `json:"faults"`
	Purge        *purgeResult     `json:"purge,omitempty"`
	Returns      []returned       `json:"returns"`
	Deploy       *deployResult    `json:"deploy,omitempty"`
	Promise      []promise.Result `json:"promise,omitempty"`
	Goals        []goal           `json:"goals"`
	Counts       world.Counts     `json:"packets"`
}

// feltCase has the visits of one kind.
type feltCase struct {
	City    string   `json:"city"`
	Body    string   `json:"body"`
	Proto   string   `json:"proto"`
	Way     string   `json:"way"`
	Samples []timing `json:"samples"`
}

// goal is a goal, and its result.
type goal struct {
	What   string `json:"what"`
	Figure string `json:"figure"`
	Met    bool   `json:"met"`
	Why    string `json:"why,omitempty"` // the reason, if it is not met
}

func (r *report) judge(met bool, what, figure string, args ...any) {
	r.Goals = append(r.Goals, goal{What: what, Figure: fmt.Sprintf(figure, args...), Met: met})
}

// why sets the reason, if the last goal is not met.
func (r *report) why(reason string) {
	if g := &r.Goals[len(r.Goals)-1]; !g.Met {
		g.Why = reason
	}
}

func firstOf(t timing) float64   { return t.First }
func lastOf(t timing) float64    { return t.Last }
func lookupOf(t timing) float64  { return t.Lookup }
func connectOf(t timing) float64 { return t.Connect }

// medianOf returns the median of a value of the samples; 0 if there are none.
func medianOf(all []timing, of func(timing) float64) float64 {
	values := make([]float64, len(all))
	for i, t := range all {
		values[i] = of(t)
	}
	return quantile(values, 0.5)
}

// quantile returns the smallest value that at least the part q of all values does not exceed; q is
// 0 to 1. It returns 0 if there are none.
func quantile(all []float64, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[max(0, min(len(all)-1, int(float64(len(all))*q+0.999999)-1))]
}

// find returns the samples of a case.
func (r *report) find(city, body, proto, way string) []timing {
	if way == wayDirect && proto == "h3" {
		proto = "h2" // the others are not measured directly
	}
	for _, c := range r.Cases {
		if c.City == city && c.Body == body && c.Proto == proto && c.Way == way {
			return c.Samples
		}
	}
	return nil
}

// ratio returns the median of one way divided by that of the direct way.
func (r *report) ratio(city, body, proto, way string, of func(timing) float64) float64 {
	direct := medianOf(r.find(city, body, proto, wayDirect), of)
	if direct == 0 {
		return 0
	}
	return medianOf(r.find(city, body, proto, way), of) / direct
}

// judgeFeel compares what Finnish users notice with the goals.
func (r *report) judgeFeel() {
	const city = string(world.Helsinki)
	if direct := medianOf(r.find(city, "1k", "h2", wayDirect), firstOf); direct > 0 {
		cold := medianOf(r.ColdName, firstOf) / direct
		r.judge(cold > 0 && cold <= 0.1,
			"a Finnish hit's first byte (1k, h2) of a name that is not in the resolver's cache is at most 0.10 of the time direct to the origin", "%.3f; %.3f when it is in the cache",
			cold, medianOf(r.KnownName, firstOf)/direct)
	}
	for _, proto := range protocols() {
		for _, b := range []string{"1k", "1m"} {
			hit := r.ratio(city, b, proto, wayHit, firstOf)
			r.judge(hit > 0 && hit <= 0.1,
				fmt.Sprintf("a Finnish hit's first byte (%s, %s), with lookup and a new connection, is at most 0.10 of the time direct to the origin", b, proto), "%.3f", hit)
		}
		cold, warm := r.ratio(city, "1k", proto, wayCold, lastOf), r.ratio(city, "1k", proto, wayWarm, lastOf)
		r.judge(cold > 0 && cold <= 1.15,
			fmt.Sprintf("a Finnish miss of 1 KiB (%s) takes at most 1.15 of the time direct to the origin", proto),
			"%.2f; %.2f when the edge has a connection to the origin", cold, warm)
		if page := r.ratio(city, "page", proto, wayCold, lastOf); page > 0 { // the short version doesn't measure it
			r.judgePage(city, proto, page)
		}
		if len(r.find(city, "20m", proto, wayHit)) == 0 {
			continue // nor these
		}
		cold, warm = r.ratio(city, "20m", proto, wayCold, lastOf), r.ratio(city, "20m", proto, wayWarm, lastOf)
		r.judge(cold > 0 && cold < 1 && warm < 1,
			fmt.Sprintf("a Finnish miss of 20 MiB (%s) takes less time than direct to the origin", proto),
			"%.2f; %.2f when the edge has a connection to the origin", cold, warm)
		r.why(coldReason)
	}
}

// judgePage compares a page whose origin closes each connection with the goal: over HTTP/1.1, the
// time of going to that origin directly. kept is its time relative to that of going to an origin
// that keeps connections.
func (r *report) judgePage(city, proto string, kept float64) {
	goal := fmt.Sprintf("a Finnish page of %d objects (%s), none of them at the edge, whose origin closes each connection, takes no longer than directly from ", pageObjects, proto)
	warm := r.ratio(city, "page", proto, wayWarm, lastOf)
	straight := medianOf(r.find(city, "page", proto, wayCloses), lastOf)
	if straight == 0 {
		r.judge(kept <= 1, goal+"an origin that keeps them", "%.2f; %.2f when the edge's origin keeps them", kept, warm)
		return
	}
	closes := medianOf(r.find(city, "page", proto, wayCold), lastOf) / straight
	r.judge(closes <= 1, goal+"it",
		"%.2f; %.2f of the time from an origin that keeps them, and %.2f when the edge's origin keeps them", closes, kept,
		warm)
}

const coldReason = "Over a new connection, the edge's fetch starts as slowly as the client's own would. Only a connection whose congestion window has grown is faster."

// readReport reads an earlier report.
func readReport(file string) (*report, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &report{}
	return r, json.Unmarshal(b, r)
}
