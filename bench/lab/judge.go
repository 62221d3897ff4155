//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// kindOf reduces a Cache-Status (RFC 9211) to one of a few words.
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

// tooLate is how many milliseconds late 1 of 100 visitors may begin.
const tooLate = 200

// judgeAll compares all measurements with the goals.
func (r *report) judgeAll() {
	r.Goals = nil
	if len(r.Cases) > 0 {
		r.judgeFeel()
	}
	if r.Purge != nil {
		r.judgePurge(r.Purge)
	}
	for _, back := range r.Returns {
		r.judgeReturn(back)
	}
	for _, f := range r.Faults {
		r.judgeFault(f)
	}
	if len(r.Promise) > 0 {
		r.judgePromise()
	}
	if d := r.Deploy; d != nil {
		r.judgeFault(d.Seen)
		r.Goals[len(r.Goals)-1].Figure += fmt.Sprintf(", in the %v that it took", d.Took.Round(time.Second))
	}
}

func (r *report) judgePurge(p *purgeResult) {
	limit := float64(p.LongestWay)/1e6*1.5 + 50
	p99 := quantile(p.Last, 0.99)
	r.judge(p99 < limit, fmt.Sprintf("99 of 100 purges have reached all edges within 1.5 of the longest one-way delay and 50 ms, which is %.0f ms", limit),
		"median %.0f ms, p99 %.0f ms, longest %.0f ms, of %d", quantile(p.Last, 0.5), p99, quantile(p.Last, 1),
		len(p.Last))
	r.why(p.note())
}

func (r *report) judgeReturn(back returned) {
	what := fmt.Sprintf("an edge that was cut off for %v, which is longer than its max_disconnected, while %d objects were purged serves none of them as they were", back.Cut, back.Objects)
	if back.Cut < r.Disconnected {
		what = fmt.Sprintf("an edge that was cut off for %v while %d objects were purged serves none of them as they were once it is back", back.Cut, back.Objects)
	}
	r.judge(back.Old == 0 && back.Errors == 0, what,
		"%d old responses, the last one %v after the link was back; %d failed requests", back.Old,
		back.Last.Round(time.Millisecond), back.Errors)
}

// judgeFault compares what visitors noticed of a fault with the goals: one goal for each load that
// may have to wait for a TTL, and one for all others.
func (r *report) judgeFault(f faultResult) {
	others, failed, all := "", 0, 0
	for _, got := range f.Loads {
		if got.Name == purgerName {
			continue // the purger is no visitor
		}
		if got.Late > tooLate {
			r.judge(false, fmt.Sprintf("%s: visitors in %s come when they are to", f.Title, got.Name),
				"%.0f ms late: this machine was too busy, and what it measured of this fault is worth nothing",
				got.Late)
		}
		bad, visits := got.failed()
		if got.Within == 0 {
			failed, all = failed+bad, all+visits
			if others != "" {
				others += "; "
			}
			others += got.Name
			continue
		}
		figure := fmt.Sprintf("%d of %d failed", bad, visits)
		if bad > 0 {
			// Visits that began before the fault were under way.
			figure += fmt.Sprintf(", from %.1f s to %.1f s after it", max(0, got.First), max(0, got.Well))
		}
		r.judge(got.Well <= got.Within.Seconds() && got.After.Failed == 0,
			fmt.Sprintf("%s: clients in %s are on the next edge within the TTL and 10 s, which is %v", f.Title,
				got.Name, got.Within.Round(time.Second)), "%s", figure)
	}
	r.judge(failed == 0 && all > 0, fmt.Sprintf("%s: no page fails (%s)", f.Title, others), "%d of %d failed", failed,
		all)
}

// judgePromise compares all faults together with the promise of purges.
func (r *report) judgePromise() {
	var broken []string
	reads, purges := 0, 0
	for _, p := range r.Promise {
		reads, purges = reads+p.Reads, purges+p.Purges
		if n := p.Violations(); n > 0 {
			broken = append(broken, fmt.Sprintf("%s %d", p.Fault, n))
		}
	}
	r.judge(len(broken) == 0, "no edge gives what it was told of as having purged, whatever goes wrong",
		"%d runs of faults, %d reads, %d purges, %d runs with violations", len(r.Promise), reads, purges, len(broken))
	r.why(strings.Join(broken, ", "))
}
