package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/peer"
)

// result has all rounds of a case.
type result struct {
	Case    testCase            `json:"case"`
	Samples map[string][]sample `json:"samples"` // by peer
	Ratios  map[string]ratio    `json:"kaiku_over"`
}

// ratio is Kaiku's figure divided by that of another peer, for each round: minimum, median
// and maximum.
type ratio struct {
	CPU   spread `json:"cpu"`
	Rate  spread `json:"requests_per_second"`
	P99   spread `json:"p99"`
	Conn  spread `json:"bytes_per_idle_connection,omitzero"`
	Paint spread `json:"first_paint,omitzero"`
	Last  spread `json:"last_picture,omitzero"`
}

type spread struct{ Min, Median, Max float64 }

func (s spread) String() string { return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max) }

type report struct {
	Time     string            `json:"time"`
	Versions map[string]string `json:"versions"`
	Results  []result          `json:"results"`
}

// spreadOf returns the minimum, median and maximum.
func spreadOf(all []float64) spread {
	if len(all) == 0 {
		return spread{}
	}
	slices.Sort(all)
	return spread{all[0], all[len(all)/2], all[len(all)-1]}
}

// over returns the spread of one figure over the rounds of a peer.
func over(rounds []sample, of func(sample) float64) spread {
	var all []float64
	for _, m := range rounds {
		all = append(all, of(m))
	}
	return spreadOf(all)
}

func cpuOf(m sample) float64   { return m.CPU }
func rateOf(m sample) float64  { return m.Rate }
func p50Of(m sample) float64   { return m.P50 }
func p99Of(m sample) float64   { return m.P99 }
func busyOf(m sample) float64  { return m.Busy }
func connOf(m sample) float64  { return m.Conn }
func rssOf(m sample) float64   { return float64(m.RSS) }
func paintOf(m sample) float64 { return m.Paint }
func lastOf(m sample) float64  { return m.Last }

func newReport(results []result, servers []server) report {
	r := report{Time: time.Now().UTC().Format(time.RFC3339), Versions: map[string]string{}, Results: results}
	for _, s := range servers {
		r.Versions[s.name] = peer.Version(s.version...)
	}
	for i := range r.Results {
		r.Results[i].compare()
	}
	return r
}

// compare divides Kaiku's figures by those of each peer.
func (r *result) compare() {
	r.Ratios = map[string]ratio{}
	own := r.Samples["kaiku"]
	for name, rounds := range r.Samples {
		if name == "kaiku" || len(own) == 0 {
			continue
		}
		div := func(of func(sample) float64) spread {
			var all []float64
			for i := range min(len(own), len(rounds)) {
				if d := of(rounds[i]); d > 0 {
					all = append(all, of(own[i])/d)
				}
			}
			return spreadOf(all)
		}
		r.Ratios[name] = ratio{CPU: div(cpuOf), Rate: div(rateOf), P99: div(p99Of), Conn: div(connOf),
			Paint: div(paintOf), Last: div(lastOf)}
	}
}

// write writes the report in all selected formats.
func write(r report, stdout io.Writer, text, asJSON, svg string) error {
	var tables bytes.Buffer
	if err := r.print(&tables); err != nil {
		return err
	}
	if _, err := stdout.Write(tables.Bytes()); err != nil {
		return err
	}
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for _, f := range []struct {
		path string
		data []byte
	}{{text, tables.Bytes()}, {asJSON, append(encoded, '\n')}, {svg, chart(r)}} {
		if f.path == "" {
			continue
		}
		if err := os.WriteFile(f.path, f.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// print writes a table for each case.
func (r report) print(w io.Writer) error {
	for _, res := range r.Results {
		fmt.Fprintf(w, "\n%s (%s)\n", res.Case.Title, res.Case.Name)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		switch {
		case res.Case.ofMemory():
			fmt.Fprint(t, "peer\tversion\tbytes/connection\tRSS MiB\tkaiku/peer\t\n")
		case res.Case.How == page:
			fmt.Fprint(t, "peer\tversion\tfirst paint ms\tlast picture ms\tkaiku/peer: paint\tlast\t\n")
		default:
			fmt.Fprint(t, "peer\tversion\tCPU µs/request\trequests/s\tbusy\tp50 µs\tp99 µs\tat origin\tRSS MiB\tkaiku/peer: CPU\trequests/s\tp99\t\n")
		}
		for _, name := range res.Case.Peers {
			if len(res.Samples[name]) > 0 {
				res.line(t, name, r.Versions[name])
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
		for _, name := range res.notHits() {
			fmt.Fprintf(w, "NOT ALL HITS: %s asked the origin while it was measured\n", name)
		}
	}
	return nil
}

// notHits returns the peers that sent requests to the origin although everything was stored.
func (r *result) notHits() (names []string) {
	for _, name := range r.Case.Peers {
		if !r.Case.misses() && r.Case.How != churn && slices.ContainsFunc(r.Samples[name],
			func(m sample) bool { return m.Origin > 0 }) {
			names = append(names, name)
		}
	}
	return names
}

// line writes the results of one peer.
func (r *result) line(w io.Writer, name, version string) {
	rounds := r.Samples[name]
	ratio, compared := r.Ratios[name]
	fmt.Fprintf(w, "%s\t%s\t", name, version)
	if r.Case.ofMemory() {
		conn := over(rounds, connOf)
		fmt.Fprintf(w, "%.0f (%.0f–%.0f)\t%.0f\t", conn.Median, conn.Min, conn.Max, over(rounds, rssOf).Median/mib)
		if compared {
			fmt.Fprint(w, ratio.Conn)
		}
		fmt.Fprint(w, "\t\n")
		return
	}
	if r.Case.How == page {
		paint, last := over(rounds, paintOf), over(rounds, lastOf)
		fmt.Fprintf(w, "%.0f (%.0f–%.0f)\t%.0f (%.0f–%.0f)\t", paint.Median/1000, paint.Min/1000, paint.Max/1000,
			last.Median/1000, last.Min/1000, last.Max/1000)
		if compared {
			fmt.Fprintf(w, "%v\t%v\t\n", ratio.Paint, ratio.Last)
		} else {
			fmt.Fprint(w, "\t\t\n")
		}
		return
	}
	var origin int64
	for _, m := range rounds {
		origin += m.Origin
	}
	cpu := over(rounds, cpuOf)
	fmt.Fprintf(w, "%.2f (%.2f–%.2f)\t%.0f\t%.0f %%\t%.0f\t%.0f\t%d\t%.0f\t", cpu.Median, cpu.Min, cpu.Max,
		over(rounds, rateOf).Median, over(rounds, busyOf).Median,
		over(rounds, p50Of).Median, over(rounds, p99Of).Median, origin, over(rounds, rssOf).Median/mib)
	if compared {
		fmt.Fprintf(w, "%v\t%v\t%v\t\n", ratio.CPU, ratio.Rate, ratio.P99)
	} else {
		fmt.Fprint(w, "\t\t\t\n")
	}
}
