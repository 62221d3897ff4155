//go:build linux

package main

import (
	"maps"
	"slices"
	"time"
)

// faultResult is what visitors noticed of a fault.
type faultResult struct {
	Name  string        `json:"name"`
	Title string        `json:"title"`
	For   time.Duration `json:"for"`
	Loads []loadResult  `json:"loads"`
}

// loadResult is what the visitors from one city noticed. Times are relative to the fault.
type loadResult struct {
	Within time.Duration  `json:"within,omitzero"` // for how long failures are allowed
	Name   string         `json:"name"`
	Before loadSum        `json:"before"`
	During loadSum        `json:"during"`
	After  loadSum        `json:"after"`
	First  float64        `json:"first_failure"` // start of the first visit that failed, in seconds
	Well   float64        `json:"well"`          // start of the last visit that failed, in seconds; 0 if none did
	Late   float64        `json:"late"`          // by how many milliseconds 99 of 100 visitors began late at most
	Errors map[string]int `json:"errors,omitempty"`
}

// loadSum sums up visits.
type loadSum struct {
	Visits int            `json:"visits"`
	Failed int            `json:"failed"`
	P50    float64        `json:"p50"`
	P99    float64        `json:"p99"`
	Most   float64        `json:"most"` // the longest, in milliseconds
	Cache  map[string]int `json:"cache"`
	Served map[string]int `json:"served"` // by host
}

// failed returns the number of failed visits and of all visits.
func (v loadResult) failed() (failed, visits int) {
	return v.Before.Failed + v.During.Failed + v.After.Failed, v.Before.Visits + v.During.Visits + v.After.Visits
}

// names returns the names of hosts by their addresses.
func names() map[string]string {
	all := map[string]string{}
	for _, h := range hosts() {
		all[h.Addr.String()] = h.Name
	}
	return all
}

// sum sums up the visits before, during and after a fault.
func sum(all []sample, at, mended time.Time) loadResult {
	res := loadResult{Errors: map[string]int{}}
	var before, during, after []sample
	var late []float64
	for _, s := range all {
		late = append(late, s.Late)
		switch {
		case s.Start.Before(at.Add(-pageLimit / 5)): // visits that begin just before the fault meet it
			before = append(before, s)
		case s.Start.Before(mended):
			during = append(during, s)
		default:
			after = append(after, s)
		}
		if s.Err != "" {
			since := s.Start.Sub(at).Seconds()
			if len(res.Errors) == 0 || since < res.First {
				res.First = since
			}
			if len(res.Errors) == 0 || since > res.Well {
				res.Well = since
			}
			res.Errors[shorten(s.Err)]++
		}
	}
	res.Late = quantile(late, 0.99)
	res.Before, res.During, res.After = sumOf(before), sumOf(during), sumOf(after)
	return res
}

func shorten(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most]
	}
	return s
}

func sumOf(all []sample) loadSum {
	out := loadSum{Visits: len(all), Cache: map[string]int{}, Served: map[string]int{}}
	known := names()
	var took []float64
	for _, s := range all {
		if s.Err != "" {
			out.Failed++
			continue
		}
		took = append(took, s.Took)
		if s.Addr != "" { // purges have no address
			out.Cache[kindOf(s.Cache)]++
			out.Served[known[s.Addr]]++
		}
	}
	out.P50, out.P99, out.Most = quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1)
	return out
}

// sorted returns the keys of a count, the highest count first.
func sorted(count map[string]int) []string {
	return slices.SortedFunc(maps.Keys(count), func(a, b string) int { return count[b] - count[a] })
}
