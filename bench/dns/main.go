// Command dns compares Kaiku's name server with gdnsd and Knot DNS. All have the same edge names,
// and choose the answer by the client's network (EDNS Client Subnet), for 1,000 networks. Signed
// answers are compared with Knot's modules geoip and onlinesign. Queries for one name without a
// client subnet are compared with gdnsd.
//
// Each server runs with one thread on core 0, and dnsperf on core 1. They talk over loopback. The
// servers run one after the other, in several rounds. The result is the CPU time (user and system)
// of the server's process divided by the number of answers that dnsperf got. Queries per second say
// less, because dnsperf is often what limits them. The program installs nothing, and writes only to
// a directory that it removes at the end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench/dns:", err)
		os.Exit(1)
	}
}

// packages has the programs that are needed, and their Debian packages.
var packages = []peer.Package{
	{Program: "taskset", Install: "util-linux"}, {Program: "dnsperf", Install: "dnsperf"}, {Program: "gdnsd",
		Install: "gdnsd"},
	{Program: "knotd", Install: "knot knot-module-geoip"},
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("dns", flag.ContinueOnError)
	kaiku := flags.String("kaiku", "bin/kaiku", "the program to measure")
	rounds := flags.Int("rounds", 5, "rounds, 1 to 50")
	seconds := flags.Int("seconds", 3, "seconds of load on each server in each round, 1 to 30")
	only := flags.String("only", "", "measure the servers alone whose name a regular expression matches")
	floodAddr := flags.String("flood", "", "for the program itself: load the server at this address")
	file := flags.String("queries", "", "for the program itself: the queries to load it with")
	asJSON := flags.Bool("json", false, "print JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 || *rounds > 50 || *seconds < 1 || *seconds > 30 {
		return errors.New("rounds or seconds out of range")
	}
	if *floodAddr != "" {
		return flood(*floodAddr, *file, time.Duration(*seconds)*time.Second, stdout)
	}
	if err := peer.Missing(packages...); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kaiku-bench-dns")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir)
	if err != nil {
		return err
	}
	defer w.close()
	servers := allServers(*kaiku)
	if *only != "" {
		wanted, err := regexp.Compile("^(?:" + *only + ")$")
		if err != nil {
			return err
		}
		servers = slices.DeleteFunc(servers, func(s server) bool { return !wanted.MatchString(s.name) })
	}
	results := make([]result, len(servers))
	for round := range *rounds {
		for i, s := range servers {
			m, err := w.measure(ctx, s, *seconds)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Fprintf(stderr, "round %d: %s: dnsperf %.2f µs of CPU per query, %.0f %% busy, %d lost; flood %.2f µs, %.0f %%, %d; %d MiB\n", round+1, s.name,
				m.Dnsperf.CPU, m.Dnsperf.Busy, m.Dnsperf.Lost, m.Flood.CPU, m.Flood.Busy, m.Flood.Lost, m.RSS>>10)
			results[i].add(s, m)
		}
	}
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(report{Time: time.Now().UTC().Format(time.RFC3339), Results: results,
			Ratios: ratios(results)})
	}
	return print(stdout, results)
}

// result has all rounds of a server.
type result struct {
	Server  string        `json:"server"`
	Version string        `json:"version"`
	Threads int           `json:"threads"`
	Rounds  []measurement `json:"rounds"`
}

type report struct {
	Time    string             `json:"time"`
	Results []result           `json:"results"`
	Ratios  map[string]float64 `json:"ratios"`
}

func (r *result) add(s server, m measurement) {
	r.Server, r.Threads, r.Version = s.name, s.threads, s.version()
	r.Rounds = append(r.Rounds, m)
}

// spread returns the minimum, median and maximum of the rounds.
func (r *result) spread(of func(measurement) float64) (low, median, high float64) {
	var all []float64
	for _, m := range r.Rounds {
		all = append(all, of(m))
	}
	slices.Sort(all)
	return all[0], all[len(all)/2], all[len(all)-1]
}

// loads are the two kinds of load.
var loads = []struct {
	name string
	of   func(measurement) loaded
}{
	{"dnsperf", func(m measurement) loaded { return m.Dnsperf }},
	{"flood", func(m measurement) loaded { return m.Flood }},
}

// ratios compares the medians of servers.
func ratios(results []result) map[string]float64 {
	all := make(map[string]float64)
	for _, load := range loads {
		median, queries := make(map[string]float64), make(map[string]float64)
		for i := range results {
			_, median[results[i].Server], _ = results[i].spread(func(m measurement) float64 { return load.of(m).CPU })
			_, queries[results[i].Server], _ = results[i].spread(func(m measurement) float64 { return load.of(m).QPS })
		}
		for _, other := range []string{"gdnsd", "knot"} {
			if median[oneCore] > 0 && median[other] > 0 {
				all[load.name+": CPU per query, kaiku over "+other] = median[oneCore] / median[other]
				all[load.name+": queries per second, kaiku over "+other] = queries[oneCore] / queries[other]
			}
		}
		for _, pair := range [][2]string{{oneCore + signedCase, "knot" + signedCase},
			{oneCore + signedCase, "knot" + aheadCase}, {oneCore + signedCase, oneCore},
			{oneCore + oneNameCase, "gdnsd" + oneNameCase}} {
			if median[pair[0]] > 0 && median[pair[1]] > 0 {
				all[fmt.Sprintf("%s: CPU per query, %s over %s", load.name, pair[0],
					pair[1])] = median[pair[0]] / median[pair[1]]
			}
		}
		if median[oneOfTwo] > 0 && median[twoCores] > 0 {
			// Two threads have twice the CPU time, and spend this much of it per query.
			all[load.name+": capacity of two threads over one"] = 2 * median[oneOfTwo] / median[twoCores]
		}
	}
	return all
}

func print(w io.Writer, results []result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "server\tversion\tload\tCPU µs/query min\tmedian\tmax\tqueries/s min\tmedian\tmax\tbusy\tlost\tRSS MiB\t")
	for i := range results {
		r := &results[i]
		for _, load := range loads {
			c1, c2, c3 := r.spread(func(m measurement) float64 { return load.of(m).CPU })
			q1, q2, q3 := r.spread(func(m measurement) float64 { return load.of(m).QPS })
			_, busy, _ := r.spread(func(m measurement) float64 { return load.of(m).Busy })
			_, _, lost := r.spread(func(m measurement) float64 { return float64(load.of(m).Lost) })
			_, _, size := r.spread(func(m measurement) float64 { return float64(m.RSS) / 1024 })
			fmt.Fprintf(t, "%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f %%\t%.0f\t%.0f\t\n",
				r.Server, r.Version, load.name, c1, c2, c3, q1, q2, q3, busy, lost, size)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	all := ratios(results)
	var lines []string
	for name, ratio := range all {
		lines = append(lines, fmt.Sprintf("%s: %.2f", name, ratio))
	}
	slices.Sort(lines)
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}
