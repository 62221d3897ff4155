package main

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/capacity"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// defaultCosts is what kaiku bench-self --json printed on the machine that it names.
//
//go:embed costs.json
var defaultCosts []byte

// planFlags are the flags of `kaiku plan` as they were given.
type planFlags struct {
	users, pages, page, regions, line, content, prices, bench, log string
	peak, cores, zipf, fresh, origin                               float64
	disk, memory                                                   config.Size
	shield, json                                                   bool
}

func planCommand() *cobra.Command {
	f := planFlags{disk: 200 << 30, memory: 4 << 30}
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Calculate the edges, the hit ratio and the traffic for a number of users",
		Long: `Calculate what a fleet needs for a number of users, and show each step: requests and bits a second at
the peak, edges of each region and what limits them, hits and what the origin sees, the loss of an
edge and of a region, traffic in a month, name servers and control nodes. The last lines are for
fleet.yaml.

The hit ratio comes from the store's own policy, run over requests of the given popularity, or over
those of an access log. The costs of requests come from kaiku bench-self; without --bench they are
those of the machine that the output names.`,
		Example: `  kaiku plan --users 1e6 --pages 10/day --page 2MB/40 --regions eu=60,us=40
  kaiku plan --users 2e5 --page 1MB/25 --log access.json --disk 100GiB
  kaiku plan --users 1e6 --bench self.json --origin 200 --shield --prices prices.txt`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.question()
			if err != nil {
				return err
			}
			p := capacity.For(q)
			out := cmd.OutOrStdout()
			if f.json {
				return json.NewEncoder(out).Encode(p)
			}
			_, err = fmt.Fprintf(out, "%s\nFor fleet.yaml (costs measured on %s)\n%s", p,
				cmp.Or(q.Costs.Machine, "an unknown machine"),
				p.FleetLines(q))
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.users, "users", "1e6", "`NUMBER` of users in a day")
	fl.StringVar(&f.pages, "pages", "10/day", "pages of a user, as `NUMBER`/day")
	fl.StringVar(&f.page, "page", "2MB/40", "`SIZE/REQUESTS` of a page")
	fl.Float64Var(&f.peak, "peak", 3, "load of the busiest second, divided by the average")
	fl.StringVar(&f.regions, "regions", "all=100", "`NAME=PERCENT,…` of the users")
	fl.Float64Var(&f.cores, "cores", 2, "cores of an edge")
	fl.Var(&f.memory, "memory", "memory of an edge")
	fl.Var(&f.disk, "disk", "disk of an edge for the store")
	fl.StringVar(&f.line, "line", "1Gbit", "`RATE` of an edge's line, in Mbit or Gbit a second")
	fl.StringVar(&f.content, "content", "1TiB/10000000", "`SIZE/OBJECTS` of everything that users request")
	fl.Float64Var(&f.zipf, "zipf", 0.9, "exponent of the objects' popularity, 0.1 to 2")
	fl.Float64Var(&f.fresh, "fresh", 1, "percent of the objects that new ones replace in a day")
	fl.Float64Var(&f.origin, "origin", 0, "requests a second that the origin can answer; 0 means unknown")
	fl.BoolVar(&f.shield, "shield", false, "misses of all regions go through one edge")
	fl.StringVar(&f.prices, "prices", "", "`FILE` with lines of a region and the price of a TB of its traffic")
	fl.StringVar(&f.bench, "bench", "", "`FILE` with the JSON of kaiku bench-self")
	fl.StringVar(&f.log, "log", "", "`FILE` with an access log (edge.access_log); replaces --content and --zipf")
	fl.BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

// question checks the flags and reads the files that they name.
func (f *planFlags) question() (*capacity.Question, error) {
	q := &capacity.Question{Origin: f.origin, Shield: f.shield}
	var errs []error
	check := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	var err error
	q.Users, err = number(f.users, 1, 1e11)
	check("users", err)
	q.Pages, err = number(strings.TrimSuffix(f.pages, "/day"), 1e-3, 1e6)
	check("pages", err)
	q.Demand.Bytes, q.Demand.Requests, err = sizeAndCount(f.page)
	check("page", err)
	q.Content.Bytes, q.Objects, err = sizeAndCount(f.content)
	check("content", err)
	q.Line, err = lineRate(f.line)
	check("line", err)
	q.Regions, err = parseRegions(f.regions)
	check("regions", err)
	q.Disk, q.Memory = float64(f.disk), float64(f.memory)
	for _, v := range []struct {
		flag     string
		value    float64
		min, max float64
		to       *float64
	}{{"peak", f.peak, 1, 1000, &q.Peak}, {"cores", f.cores, 0.1, 1024, &q.Cores}, {"zipf", f.zipf, 0.1, 2, &q.Zipf},
		{"fresh", f.fresh / 100, 0, 1, &q.Fresh}, {"origin", f.origin, 0, 1e9, &q.Origin},
		{"disk", q.Disk, config.MinDisk, 1e18, &q.Disk}, {"memory", q.Memory, 1 << 27, 1e15, &q.Memory}} {
		*v.to = v.value
		if !(v.value >= v.min && v.value <= v.max) {
			check(v.flag, fmt.Errorf("out of range"))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, usageError{err}
	}
	return q, f.readFiles(q)
}

func (f *planFlags) readFiles(q *capacity.Question) error {
	costs := defaultCosts
	if f.bench != "" {
		b, err := os.ReadFile(f.bench)
		if err != nil {
			return fmt.Errorf("--bench: %w", err)
		}
		costs = b
	}
	var err error
	if q.Costs, err = capacity.ParseCosts(costs); err != nil {
		return fmt.Errorf("--bench %s: %w", f.bench, err)
	}
	if f.prices != "" {
		if q.Prices, err = readPrices(f.prices, q.Regions); err != nil {
			return fmt.Errorf("--prices %s: %w", f.prices, err)
		}
	}
	if f.log != "" {
		q.Log, err = capacity.Replay(func() (io.ReadCloser, error) { return os.Open(f.log) }, int64(f.disk))
		if err != nil {
			return fmt.Errorf("--log %s: %w", f.log, err)
		}
	}
	return nil
}

// number parses a number such as 250000 or 1e6.
func number(s string, least, most float64) (float64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || !(n >= least && n <= most) {
		return 0, fmt.Errorf("%q is not a number from %g to %g", s, least, most)
	}
	return n, nil
}

// sizeAndCount parses 2MB/40.
func sizeAndCount(s string) (bytes, n float64, err error) {
	size, rest, ok := strings.Cut(s, "/")
	var b config.Size
	if !ok || b.Set(size) != nil || b == 0 {
		return 0, 0, fmt.Errorf("%q: want a size, a slash and a number, such as 2MB/40", s)
	}
	n, err = number(rest, 1, 1e12)
	return float64(b), n, err
}

// lineRate parses 1Gbit or 500Mbit, and returns bits a second.
func lineRate(s string) (float64, error) {
	s = strings.TrimSuffix(strings.TrimSuffix(s, "/s"), "it")
	for suffix, unit := range map[string]float64{"Mb": 1e6, "Gb": 1e9} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			v, err := number(n, 1e-3, 1e6)
			return v * unit, err
		}
	}
	return 0, fmt.Errorf("%q: want a rate such as 500Mbit or 1Gbit", s)
}

// parseRegions parses eu=60,us=40.
func parseRegions(s string) (list []capacity.Region, err error) {
	sum := 0.0
	for part := range strings.SplitSeq(s, ",") {
		name, percent, ok := strings.Cut(part, "=")
		n, err := number(percent, 0.01, 100)
		if !ok || name == "" || err != nil {
			return nil, fmt.Errorf("%q: want a name and percent, such as eu=60", part)
		}
		if slices.ContainsFunc(list, func(r capacity.Region) bool { return r.Name == name }) {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		list, sum = append(list, capacity.Region{Name: name, Share: n / 100}), sum+n
	}
	if math.Abs(sum-100) > 0.5 || len(list) > 64 {
		return nil, fmt.Errorf("%s: want at most 64 regions that add up to 100 percent, not to %g", s, sum)
	}
	return list, nil
}

// readPrices reads lines of a region and a price.
func readPrices(file string, regions []capacity.Region) (map[string]float64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	prices := map[string]float64{}
	for i, l := range strings.Split(string(b), "\n") {
		l, _, _ = strings.Cut(l, "#")
		words := strings.Fields(l)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 {
			return nil, fmt.Errorf("line %d: want a region and the price of a TB", i+1)
		}
		if prices[words[0]], err = number(words[1], 0, 1e6); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	for _, r := range regions {
		if _, ok := prices[r.Name]; !ok {
			return nil, fmt.Errorf("no price for %s: it has prices for %s", r.Name,
				strings.Join(slices.Sorted(maps.Keys(prices)), ", "))
		}
	}
	return prices, nil
}
