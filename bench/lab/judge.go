//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// kindOf makes a Cache-Status (RFC 9211) one of a few words.
func kindOf(status string) string {
	switch {
	case strings.Contains(status, "stale-if-error"):
		return "stale, as the origin failed"
	case strings.Contains(status, "; hit") && strings.Contains(status, "ttl=-"):
		return "stale"
	case strings.Contains(status, "; hit"):
		return "hit"
	case strings.Contains(status, "fwd=stale"):
		return "asked again"
	case strings.Contains(status, "fwd="):
		return "miss"
	}
	return status
}

// tooLate is how late 1 of 100 visitors may begin, in milliseconds.
const tooLate = 200

// judgeFault holds what visitors saw to the goals.
func (r *report) judgeFault(f fault, res faultResult) {
	for k, v := range f.loads {
		got := res.Loads[k]
		if got.Late > tooLate {
			r.judge(false, fmt.Sprintf("%s: visitors in %s come when they are to", f.title, v.name), "%.0f ms late: this machine was too busy, and what it measured of this fault is worth nothing", got.Late)
		}
		failed := got.Before.Failed + got.During.Failed + got.After.Failed
		all := got.Before.Visits + got.During.Visits + got.After.Visits
		figure := fmt.Sprintf("%d of %d failed", failed, all)
		if failed > 0 {
			figure += fmt.Sprintf(", from %.1f s to %.1f s after it", max(0, got.First), max(0, got.Well)) // those before were under way
		}
		switch {
		case v.noGoal:
		case v.within > 0:
			moved := got.Well <= v.within.Seconds() && got.After.Failed == 0
			r.judge(moved, fmt.Sprintf("%s: clients in %s are on the next edge within the TTL and 10 s, which is %v", f.title, v.name, v.within.Round(time.Second)), "%s", figure)
		default:
			r.judge(failed == 0 && all > 0, fmt.Sprintf("%s: no page fails in %s", f.title, v.name), "%s", figure)
		}
	}
}
