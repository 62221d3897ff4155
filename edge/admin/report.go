package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// Report is what a node tells all other nodes about itself, for people to read.
type Report struct {
	Location *[2]float64 `json:"location,omitempty"` // latitude and longitude, from the fleet file
	// Rates are those of the last ten seconds.
	Rates *Rates `json:"rates,omitempty"`
	// Seconds counts the answers of the last ten seconds by their duration; see
	// front.SecondsBuckets.
	Seconds      []uint64           `json:"seconds,omitempty"`
	Store        *StoreReport       `json:"store,omitempty"`
	Certificates *CertificateReport `json:"certificates,omitempty"`
	Sites        []SiteReport       `json:"sites,omitempty"`      // of an edge
	MoreSites    int                `json:"more_sites,omitempty"` // that are fine and have no place in the report
	// Served is about how many answers of a name server sent clients of each country to each node
	// in the last minutes, by node and country.
	Served map[string]map[string]int `json:"served,omitempty"`
	// Down are the nodes whose health probes fail at a name server.
	Down []string `json:"down,omitempty"`
}

// Rates are counts per second.
type Rates struct {
	Requests float64 `json:"requests"`
	Hits     float64 `json:"hits"`
	Errors   float64 `json:"errors"`   // answered with 500 to 599
	Bytes    float64 `json:"bytes"`    // of bodies, sent
	Bodies   float64 `json:"bodies"`   // bytes of the bodies of answers that ended
	HitBytes float64 `json:"hit_body"` // those of hits among Bodies
	Origin   float64 `json:"origin"`   // requests to origin servers
}

// StoreReport is the state of an edge's store.
type StoreReport struct {
	Bytes   int64 `json:"bytes"`
	Disk    int64 `json:"disk"` // the budget
	Objects int   `json:"objects"`
}

// CertificateReport is about the certificate that expires first.
type CertificateReport struct {
	Name     string   `json:"name,omitempty"`
	DaysLeft *float64 `json:"days_left,omitempty"` // nil if there is none yet
	Missing  int      `json:"missing,omitempty"`   // names without a certificate
}

// SiteReport is the health of a site's origin, as one edge sees it.
type SiteReport struct {
	Site    string `json:"site"`
	Up      int    `json:"up"`
	Servers int    `json:"servers"`
	Why     string `json:"why,omitempty"` // the last error of a server that is not up
}

const (
	measureEvery = 2 * time.Second
	// measured is how many measurements a Report spans, and is published after.
	measured = 5
	maxWhy   = 160 // octets of SiteReport.Why
	maxNamed = 32  // nodes in Report.Down
	// maxRate and maxServed are more than any node has.
	maxRate   = 1e15
	maxServed = 1 << 40
)

// Reporter measures a node. Its fields are set before Serve.
type Reporter struct {
	Location *[2]float64
	Edge     *Edge                                // nil on a node that is no edge
	Sites    *site.Table                          // of an edge
	Served   func() map[string]map[string]float64 // of a name server, or nil
	Down     func() []string                      // of a name server, or nil
	// Publish is called every ten seconds, and sooner after it failed; may be nil.
	Publish func(Report) error

	last atomic.Pointer[Report]
}

// Last returns the last report.
func (r *Reporter) Last() Report {
	if last := r.last.Load(); last != nil {
		return *last
	}
	return Report{Location: r.Location}
}

// totals are the counts of an edge at one time.
type totals struct {
	at time.Time
	front.Totals
	origin uint64
}

// Serve measures until ctx ends. If ctx has ended before, the node failed to start, and Serve
// publishes nothing.
func (r *Reporter) Serve(ctx context.Context) error {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	window, due := []totals{}, false
	for n := 0; ctx.Err() == nil; n++ {
		var report Report
		report, window = r.measure(time.Now(), window)
		r.last.Store(&report)
		due = due || n%measured == 0
		if due && r.Publish != nil {
			due = r.Publish(report) != nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

// measure returns a report. window has the totals of the last measurements, the oldest first.
func (r *Reporter) measure(now time.Time, window []totals) (Report, []totals) {
	out := Report{Location: r.Location}
	if r.Served != nil {
		out.Served = rounded(r.Served())
	}
	if r.Down != nil {
		out.Down = r.Down()
		slices.Sort(out.Down)
		out.Down = out.Down[:min(len(out.Down), maxNamed)]
	}
	if r.Edge == nil {
		return out, nil
	}
	t := totals{at: now, Totals: r.Edge.Front.Metrics.Totals()}
	t.Bytes = r.Edge.Front.Sent()
	out.Sites, t.origin = r.origins()
	if window = append(window, t); len(window) > measured+1 {
		window = slices.Delete(window, 0, 1)
	}
	out.Rates, out.Seconds = t.since(window[0])
	st := r.Edge.Store.Stats()
	out.Store = &StoreReport{Bytes: st.Bytes, Disk: st.Disk, Objects: st.Objects}
	out.Certificates = r.certificates(now)
	return out, window
}

// since returns the rates between two measurements.
func (t totals) since(before totals) (*Rates, []uint64) {
	passed := t.at.Sub(before.at).Seconds()
	rate := func(now, then uint64) float64 {
		if passed <= 0 || now < then { // a reload may have replaced an origin's counters
			return 0
		}
		return math.Round(float64(now-then)/passed*1000) / 1000
	}
	seconds := slices.Clone(t.Seconds)
	for i := range seconds {
		seconds[i] -= before.Seconds[i]
	}
	return &Rates{Requests: rate(t.Requests, before.Requests), Hits: rate(t.Hits, before.Hits),
		Errors: rate(t.Errors, before.Errors), Bytes: rate(t.Bytes, before.Bytes), Bodies: rate(t.Bodies,
			before.Bodies),
		HitBytes: rate(t.HitBodies, before.HitBodies), Origin: rate(t.origin, before.origin)}, seconds
}

// origins returns the health of the sites' origins, and how many requests they got.
func (r *Reporter) origins() (sites []SiteReport, requests uint64) {
	seen := map[*origin.Pool]bool{}
	for _, s := range r.Sites.Now().List {
		if s.Origin == nil || s.Origin.Origin == nil {
			continue
		}
		out := SiteReport{Site: s.Name}
		for _, server := range s.Origin.Origin.Status().Servers {
			if out.Servers++; server.Up() {
				out.Up++
			} else if out.Why == "" {
				out.Why = server.Why[:min(len(server.Why), maxWhy)]
			}
			if !seen[s.Origin.Origin] {
				requests += server.Requests
			}
		}
		seen[s.Origin.Origin] = true
		sites = append(sites, out)
	}
	return sites, requests
}

func (r *Reporter) certificates(now time.Time) *CertificateReport {
	if r.Edge.Certificates == nil {
		return nil
	}
	out := &CertificateReport{}
	for _, c := range r.Edge.Certificates.Status(now) {
		switch {
		case c.DaysLeft == nil:
			out.Missing++
		case out.DaysLeft == nil || *c.DaysLeft < *out.DaysLeft:
			days := math.Round(*c.DaysLeft*10) / 10
			out.Name, out.DaysLeft = c.Name, &days
		}
	}
	return out
}

// Measure returns a report about all but an edge's traffic.
func (r *Reporter) Measure() Report {
	out, _ := r.measure(time.Now(), nil)
	return out
}

// ParseReport parses the report of another node. It replaces values that no node has, so that sums
// over all nodes stay finite.
func ParseReport(b []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return Report{}, fmt.Errorf("parse the report of a node: %w", err)
	}
	if n := r.Rates; n != nil {
		for _, v := range []*float64{&n.Requests, &n.Hits, &n.Errors, &n.Bytes, &n.Bodies, &n.HitBytes, &n.Origin} {
			*v = min(max(*v, 0), maxRate)
		}
	}
	if at := r.Location; at != nil && (math.Abs(at[0]) > 90 || math.Abs(at[1]) > 180) {
		r.Location = nil
	}
	for _, countries := range r.Served {
		for country, n := range countries {
			countries[country] = min(max(n, 0), maxServed)
		}
	}
	return r, nil
}

// rounded returns the counts as numbers of at least 1.
func rounded(all map[string]map[string]float64) map[string]map[string]int {
	out := make(map[string]map[string]int, len(all))
	for node, countries := range all {
		out[node] = make(map[string]int, len(countries))
		for country, n := range countries {
			out[node][country] = int(max(1, math.Round(n)))
		}
	}
	return out
}

// Encode returns the report as JSON of at most limit bytes. It leaves out sites that are fine, then
// the countries with the fewest clients, and then whatever is longest.
func (r Report) Encode(limit int) ([]byte, error) {
	r.Sites = slices.SortedStableFunc(slices.Values(r.Sites), func(a, b SiteReport) int {
		return cmp.Compare(b.Servers-b.Up, a.Servers-a.Up)
	})
	served := r.Served
	for least := 1; ; {
		b, err := json.Marshal(r)
		if err != nil || len(b) <= limit {
			return b, err
		}
		last := len(r.Sites) - 1
		switch {
		case last >= 0 && r.Sites[last].Up == r.Sites[last].Servers:
			n := min(last+1, max(1, (len(b)-limit)/64))
			for n > 1 && r.Sites[last+1-n].Up != r.Sites[last+1-n].Servers {
				n--
			}
			r.Sites, r.MoreSites = r.Sites[:last+1-n], r.MoreSites+n
		case len(r.Served) > 0:
			least *= 2
			r.Served = atLeast(served, least)
		case last >= 0:
			r.Sites = r.Sites[:last]
		default:
			r.Down, r.Certificates = nil, nil
			limit = math.MaxInt // what is left is small
		}
	}
}

// atLeast returns the counts that are at least so large.
func atLeast(all map[string]map[string]int, least int) map[string]map[string]int {
	out := map[string]map[string]int{}
	for node, countries := range all {
		kept := maps.Clone(countries)
		maps.DeleteFunc(kept, func(_ string, n int) bool { return n < least })
		if len(kept) > 0 {
			out[node] = kept
		}
	}
	return out
}
