package capacity

import (
	"fmt"
	"math"
	"strings"
)

// Demand is what the users of a site do.
type Demand struct {
	Users    float64
	Pages    float64 // that a user loads in a day
	Bytes    float64 // of a page
	Requests float64 // of a page
	// Peak is the load of the busiest second, divided by that of the average second.
	Peak    float64
	Regions []Region
}

// Region is a part of the world with edges of its own.
type Region struct {
	Name  string
	Share float64 // of the users, 0 to 1
}

// Machine is an edge.
type Machine struct {
	Cores  float64
	Memory float64 // bytes
	Disk   float64 // bytes for the store
	Line   float64 // bits a second
}

// Question is what a plan answers.
type Question struct {
	Demand
	Machine
	Content
	Costs *Costs
	// Log replaces the popularity of Content, if there is one.
	Log *Log
	// Origin is how many requests a second the origin can answer; 0 means unknown.
	Origin float64
	Shield bool
	// Prices are the prices of a TB of traffic, by region.
	Prices map[string]float64
}

// What a machine should use of itself at the peak. The rest is for the loss of a neighbour, for
// bursts within a second, and for everything that is no request.
const (
	cpuShare    = 0.5
	lineShare   = 0.6
	memoryShare = 0.5
)

const (
	secondsOfDay   = 86400
	daysOfMonth    = 30.44
	connectionStay = 60.0 // seconds that a browser's connection stays open after a page
	minEdges       = 2    // in each region, so that one may fail
)

// Plan is the answer to a Question.
type Plan struct {
	Steps   []Step       `json:"steps"`
	Regions []RegionPlan `json:"regions"`
	Ratios  Ratios       `json:"hit_ratio"`
	// Origin is the requests a second that reach the origin at the peak, and Needed the hit ratio
	// of the fleet with which they stay under the origin's limit.
	Origin      float64 `json:"origin_requests"`
	Needed      float64 `json:"needed_hit_ratio,omitempty"`
	NameServers int     `json:"name_servers"`
	Control     int     `json:"control_nodes"`
	// Capacity is the value for edge.capacity, in bytes a second.
	Capacity float64 `json:"capacity"`
}

// RegionPlan is what a region needs.
type RegionPlan struct {
	Name     string  `json:"name"`
	Requests float64 `json:"requests"` // a second at the peak
	Bits     float64 `json:"bits"`     // a second at the peak
	Edges    int     `json:"edges"`
	Binds    string  `json:"binds"` // what needs the most edges
	// CPU, Line and Memory are the shares of the machines that are in use at the peak.
	CPU    float64 `json:"cpu"`
	Line   float64 `json:"line"`
	Memory float64 `json:"memory"`
	Month  float64 `json:"month_bytes"`
	Price  float64 `json:"month_price,omitempty"`
}

// Step is a part of the calculation.
type Step struct {
	Title string `json:"title"`
	Lines []Line `json:"lines"`
}

// Line is one result, with how it was calculated.
type Line struct {
	How   string `json:"how"`
	Value string `json:"value"`
}

// For returns the plan for a question.
func For(q *Question) *Plan {
	p := &Plan{}
	average := q.Users * q.Pages * q.Requests / secondsOfDay
	peak, body := average*q.Peak, q.Demand.Bytes/q.Requests
	p.step("Requests",
		Line{fmt.Sprintf("%s users × %s pages a day × %s requests", count(q.Users), count(q.Pages), count(q.Requests)),
			count(average) + "/s on average"},
		Line{fmt.Sprintf("× %s at the peak", count(q.Peak)), count(peak) + "/s"},
		Line{fmt.Sprintf("× %s a response", size(body)), bits(peak * body * 8)})
	for _, r := range q.Regions {
		p.Regions = append(p.Regions, RegionPlan{Name: r.Name, Requests: peak * r.Share,
			Bits:  peak * r.Share * body * 8,
			Month: average * r.Share * body * secondsOfDay * daysOfMonth})
	}
	// The ratio depends on the number of edges, and what misses cost on the ratio.
	p.Ratios = Ratios{Edge: 0.9, Fleet: 0.95}
	for range 2 {
		for i := range p.Regions {
			p.Regions[i].size(q, p.Ratios.Edge)
		}
		p.Ratios = q.ratios(p)
	}
	p.explainEdges(q)
	p.explainRatio(q, peak)
	p.explainLoss(q)
	p.explainRest(q, peak)
	return p
}

// size sets the number of edges.
func (r *RegionPlan) size(q *Question, ratio float64) {
	cpu, pages := q.cpu(r.Requests, ratio), r.Requests/q.Requests
	memory := pages * connectionStay * q.Costs.Connection
	use := []struct {
		name  string
		edges float64
	}{
		{"CPU", cpu / (q.Cores * cpuShare)},
		{"line", r.Bits / (q.Line * lineShare)},
		{"connections", memory / (q.Memory * memoryShare)},
	}
	r.Edges, r.Binds = minEdges, "the loss of one"
	for _, u := range use {
		if n := int(math.Ceil(u.edges)); n > r.Edges {
			r.Edges, r.Binds = n, u.name
		}
	}
	n := float64(r.Edges)
	r.CPU, r.Line, r.Memory = cpu/q.Cores/n, r.Bits/q.Line/n, memory/q.Memory/n
	r.Price = q.Prices[r.Name] * r.Month / 1e12
}

// cpu returns the cores that requests take, over HTTP/2, with a share of hits. Each page takes a
// connection, and every second one resumes a TLS session.
func (q *Question) cpu(requests, ratio float64) float64 {
	hit := q.Costs.Hit("http2", q.Demand.Bytes/q.Requests)
	handshake := (q.Costs.Handshake + q.Costs.Resumed) / 2
	return requests * (hit + (1-ratio)*q.Costs.Miss + handshake/q.Requests) / 1e6
}

// ratios returns the ratios to expect with the edges of a plan.
func (q *Question) ratios(p *Plan) Ratios {
	if q.Log != nil {
		hits := float64(q.Log.Hits) / math.Max(1, float64(q.Log.Requests))
		return Ratios{hits, hits}
	}
	var shares []float64
	var edges []int
	for i, r := range q.Regions {
		shares, edges = append(shares, r.Share), append(edges, p.Regions[i].Edges)
	}
	return q.expect(shares, edges, q.Disk, q.Shield)
}

func (p *Plan) step(title string, lines ...Line) { p.Steps = append(p.Steps, Step{title, lines}) }

// explainEdges adds the step that says how many edges each region needs, and why.
func (p *Plan) explainEdges(q *Question) {
	body := q.Demand.Bytes / q.Requests
	lines := []Line{
		{fmt.Sprintf("an edge: %s cores, %s of memory, %s of disk, %s; at the peak it should use %.0f %% of its CPU, %.0f %% of its line and %.0f %% of its memory",
			count(q.Cores), size(q.Memory), size(q.Disk), bits(q.Line), cpuShare*100, lineShare*100, memoryShare*100),
			""},
		{fmt.Sprintf("a hit of %s over HTTP/2", size(body)), fmt.Sprintf("%.0f µs of CPU", q.Costs.Hit("http2", body))},
		{"a miss adds", fmt.Sprintf("%.0f µs", q.Costs.Miss)},
		{"a page takes a connection, and every second one resumes a TLS session",
			fmt.Sprintf("%.0f µs", (q.Costs.Handshake+q.Costs.Resumed)/2)},
	}
	for _, r := range p.Regions {
		lines = append(lines, Line{fmt.Sprintf("%s: %s/s, %s", r.Name, count(r.Requests), bits(r.Bits)),
			fmt.Sprintf("%d edges, because of %s (each: CPU %.0f %%, line %.0f %%, memory for connections %.0f %%)",
				r.Edges, r.Binds,
				r.CPU*100, r.Line*100, r.Memory*100)})
	}
	p.step("Edges", lines...)
}

// explainRatio adds the step about hits and the origin.
func (p *Plan) explainRatio(q *Question, peak float64) {
	p.Origin = peak * (1 - p.Ratios.Fleet)
	var lines []Line
	if q.Log != nil {
		lines = append(lines, Line{fmt.Sprintf("the log: %s requests of %s URLs with %s, through the policy of a store of %s",
			count(float64(q.Log.Requests)), count(float64(q.Log.Objects)), size(float64(q.Log.Content)), size(q.Disk)),
			percent(p.Ratios.Edge)})
	} else {
		lines = append(lines,
			Line{fmt.Sprintf("%s objects with %s, Zipf %.2f, through the policy of stores of %s: hits at an edge",
				count(q.Objects), size(q.Content.Bytes), q.Zipf, size(q.Disk)), percent(p.Ratios.Edge)},
			Line{tiers(q.Shield), percent(p.Ratios.Fleet)})
	}
	lines = append(lines, Line{"the rest reaches the origin at the peak", count(p.Origin) + "/s"})
	fresh := 0.0
	if q.Fresh > 0 {
		fresh = q.Fresh * q.Objects / secondsOfDay * q.Peak
		if !q.Shield {
			fresh *= float64(len(q.Regions))
		}
		p.Origin += fresh
		lines = append(lines, Line{fmt.Sprintf("new objects, %s of all each day, are fetched once by each region or by the shield",
			percent(q.Fresh)), count(fresh) + "/s"})
	}
	if q.Origin > 0 {
		p.Needed = math.Max(0, 1-(q.Origin-fresh)/peak)
		verdict := "it holds"
		if p.Origin > q.Origin {
			verdict = "IT DOES NOT HOLD: use larger disks, a shield, or longer lifetimes"
		}
		lines = append(lines, Line{fmt.Sprintf("the origin can answer %s/s: needed are %s of hits", count(q.Origin),
			percent(p.Needed)), verdict})
	}
	p.step("Hits, and what the origin sees", lines...)
}

func tiers(shield bool) string {
	if shield {
		return "hits at the edge, its owner or the shield"
	}
	return "hits at the edge or its owner"
}

// explainLoss adds the step about the loss of an edge and of a region.
func (p *Plan) explainLoss(q *Question) {
	var lines []Line
	for _, r := range p.Regions {
		n := float64(r.Edges)
		lines = append(lines, Line{fmt.Sprintf("%s loses an edge at the peak: each of the others", r.Name),
			fmt.Sprintf("CPU %.0f %%, line %.0f %%", r.CPU*100*n/(n-1), r.Line*100*n/(n-1))})
	}
	for i, gone := range p.Regions {
		if len(p.Regions) == 1 {
			break
		}
		rest := 1 - q.Regions[i].Share
		worst, line := 0.0, 0.0
		for j, r := range p.Regions {
			if j != i {
				worst, line = math.Max(worst, r.CPU/rest), math.Max(line, r.Line/rest)
			}
		}
		note := ""
		if worst > 1 || line > 1 {
			note = ": MORE THAN THEY HAVE"
		}
		lines = append(lines, Line{gone.Name + " is lost at the peak: edges elsewhere, at most",
			fmt.Sprintf("CPU %.0f %%, line %.0f %%%s", worst*100, line*100, note)})
	}
	p.step("What a loss does", lines...)
}

// explainRest adds the steps about traffic, name servers, control nodes and the fleet file.
func (p *Plan) explainRest(q *Question, peak float64) {
	var lines []Line
	total, price := 0.0, 0.0
	edges := 0
	for _, r := range p.Regions {
		value := fmt.Sprintf("%.1f TB", r.Month/1e12)
		if at, ok := q.Prices[r.Name]; ok {
			value += fmt.Sprintf(" × %.2f = %.0f", at, r.Price)
		}
		lines = append(lines, Line{r.Name, value})
		total, price, edges = total+r.Month, price+r.Price, edges+r.Edges
	}
	sum := fmt.Sprintf("%.1f TB", total/1e12)
	if len(q.Prices) > 0 {
		sum += fmt.Sprintf(", %.0f", price)
	}
	p.step("Traffic in a month", append(lines, Line{"all", sum})...)
	queries := peak / q.Requests
	p.NameServers = max(2, int(math.Ceil(queries*q.Costs.Query/1e6/(q.Cores*cpuShare))))
	p.Control = 3
	if edges > 100 {
		p.Control = 5
	}
	p.step("Name servers and control nodes",
		Line{"at most one query for each page at the peak", count(queries) + "/s"},
		Line{fmt.Sprintf("%.0f µs each; two at least, in different places", q.Costs.Query),
			fmt.Sprintf("%d name servers (%.1f %% of a core)", p.NameServers, queries*q.Costs.Query/1e4)},
		Line{"three survive the loss of one, five that of two", fmt.Sprintf("%d control nodes", p.Control)})
	p.Capacity = q.Line / 8
}

// FleetLines returns the lines for the part edge of fleet.yaml.
func (p *Plan) FleetLines(q *Question) string {
	tier := math.Max(q.Memory/8, 64<<20)
	return fmt.Sprintf("edge:\n  capacity: %.0fMiB\n  disk: %.0fGiB\n  memory: %.0fMiB\n", p.Capacity/(1<<20),
		q.Disk/(1<<30),
		tier/(1<<20))
}

// String returns the plan as text.
func (p *Plan) String() string {
	var b strings.Builder
	for i, s := range p.Steps {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(s.Title + "\n")
		for _, l := range s.Lines {
			if l.Value == "" {
				fmt.Fprintf(&b, "  %s\n", l.How)
				continue
			}
			fmt.Fprintf(&b, "  %s: %s\n", l.How, l.Value)
		}
	}
	return b.String()
}

func percent(x float64) string { return fmt.Sprintf("%.1f %%", x*100) }

// bits returns a rate in bits a second.
func bits(n float64) string {
	units := []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"}
	i := 0
	for n >= 1000 && i < len(units)-1 {
		n, i = n/1000, i+1
	}
	return fmt.Sprintf("%.3g %s", n, units[i])
}

// count returns a number with commas, and with decimals only if it is small.
func count(n float64) string {
	if n < 100 && n != math.Trunc(n) {
		return fmt.Sprintf("%.2g", n)
	}
	digits := fmt.Sprintf("%.0f", n)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
