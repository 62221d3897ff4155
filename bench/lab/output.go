//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
)

// outputs are the files to which a report is written; "" means none.
type outputs struct{ text, json, svg, doc string }

func (o outputs) write(r *report, stdout io.Writer) error {
	var text bytes.Buffer
	if err := r.print(&text); err != nil {
		return err
	}
	if _, err := stdout.Write(text.Bytes()); err != nil {
		return err
	}
	encoded, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	for _, f := range []struct {
		path string
		data []byte
	}{{o.text, text.Bytes()}, {o.json, append(encoded, '\n')}, {o.svg, chart(r)}, {o.doc, page(r, o.svg)}} {
		if f.path == "" {
			continue
		}
		if err := os.WriteFile(f.path, f.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// met returns a word for whether a goal is met.
func met(g goal) string {
	if g.Met {
		return "met"
	}
	return "NOT MET"
}

// print writes the report as text.
func (r *report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, table := range r.tables() {
		fmt.Fprintf(t, "\n%s\n", table.title)
		for _, row := range append([][]string{table.head}, table.rows...) {
			for _, cell := range row {
				fmt.Fprint(t, cell, "\t")
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "\nGoals\n")
	for _, g := range r.Goals {
		fmt.Fprintf(w, "%-8s %s: %s\n", met(g), g.What, g.Figure)
		if g.Why != "" {
			fmt.Fprintf(w, "         %s\n", g.Why)
		}
	}
	_, err := fmt.Fprintf(w, "\npackets: %+v\n", r.Counts)
	return err
}

// table is a table of the report.
type table struct {
	title string
	head  []string
	rows  [][]string
	note  string // a sentence below the table
}

func (r *report) tables() (all []table) {
	if len(r.Cases) > 0 {
		all = append(all, r.feltTable(), r.stepsTable())
	}
	if len(r.Faults) > 0 {
		all = append(all, r.faultTable())
	}
	if d := r.Deploy; d != nil {
		all = append(all, d.table())
	}
	if p := r.Purge; p != nil {
		t := table{"Purges over the ocean, ms", []string{"", "median", "p99", "longest"}, [][]string{
			{"until the operator gets the answer", ms(quantile(p.Ack, 0.5)), ms(quantile(p.Ack, 0.99)),
				ms(quantile(p.Ack, 1))},
			{"from the answer until the last old response", ms(quantile(p.Last, 0.5)), ms(quantile(p.Last, 0.99)),
				ms(quantile(p.Last, 1))}}, p.note()}
		for _, c := range cities() {
			at := p.At[c.edge]
			t.rows = append(t.rows, []string{"the same at " + c.edge + " alone", ms(quantile(at, 0.5)),
				ms(quantile(at, 0.99)), ms(quantile(at, 1))})
		}
		all = append(all, t)
	}
	if len(r.Returns) > 0 {
		t := table{"sin1 cut off while its objects are purged",
			[]string{"cut for", "objects", "old responses", "the last one after", "failed", "first answer after"}, nil,
			"While the edge is cut off, name servers send no clients to it. Here the client sends requests to it in spite of that, as soon as the link is back. `kaiku purge --wait` prints the edges that have not applied the purge."}
		for _, c := range r.Returns {
			t.rows = append(t.rows, []string{c.Cut.String(), fmt.Sprint(c.Objects), fmt.Sprint(c.Old),
				c.Last.Round(time.Millisecond).String(), fmt.Sprint(c.Errors),
				c.Began.Round(time.Millisecond).String()})
		}
		all = append(all, t)
	}
	if len(r.Promise) > 0 {
		t := table{"The promise of purges", []string{"what goes wrong", "reads", "failed", "purges", "refused",
			"whole again after", "violations"}, nil,
			"Each row is a run with a fleet of its own: three control nodes, three edges, a name server. [A page](decisions/purge-faults.md) tells what a violation is."}
		for _, p := range r.Promise {
			t.rows = append(t.rows, []string{p.Title, fmt.Sprint(p.Reads), fmt.Sprint(p.ReadsFailed),
				fmt.Sprint(p.Purges), fmt.Sprint(p.PurgesRefused), p.Recovered.Round(100 * time.Millisecond).String(),
				fmt.Sprint(p.Violations())})
		}
		all = append(all, t)
	}
	return all
}

func ms(v float64) string {
	if v > -10 && v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// feltTable has the times to the first and last byte by city, size and protocol.
func (r *report) feltTable() table {
	t := table{"What users notice: first byte / last byte, ms, medians, with DNS lookup and a new connection",
		[]string{"from", "what", "protocol", "direct to the origin", "miss, cold to the origin", "miss, warm", "hit",
			"hit/direct"}, nil,
		"Cold: the edge makes a new connection to the origin for this miss; for a page, it makes one for each object, because the origin closes each connection. Direct to the origin, the first byte of 1 MiB comes a round trip later than that of 1 KiB: nginx sends TLS records of 16 KiB. " +
			"A client can read a record only when all of it has arrived, and a new connection may not send that much at once."}
	for _, c := range placesOf(r) {
		for _, b := range bodyList() {
			for _, proto := range protocols() {
				if len(r.find(c, b.name, proto, wayHit)) == 0 {
					continue
				}
				row := []string{c, b.title, proto}
				for _, way := range ways() {
					s := r.find(c, b.name, proto, way)
					cell := ms(medianOf(s, firstOf)) + " / " + ms(medianOf(s, lastOf))
					if way == wayDirect && proto == "h3" {
						cell += " (h2)"
					}
					row = append(row, cell)
				}
				t.rows = append(t.rows, append(row,
					fmt.Sprintf("%.3f / %.3f", r.ratio(c, b.name, proto, wayHit, firstOf),
						r.ratio(c, b.name, proto, wayHit, lastOf))))
			}
		}
	}
	return t
}

// stepsTable has the times of the steps to 1 KiB.
func (r *report) stepsTable() table {
	t := table{"The steps of a request for 1 KiB, ms since its start: name / connection / first byte / last byte",
		[]string{"from", "protocol", "direct to the origin", "miss, cold to the origin", "miss, warm", "hit"}, nil,
		""}
	for _, c := range placesOf(r) {
		for _, proto := range protocols() {
			row := []string{c, proto}
			for _, way := range ways() {
				s := r.find(c, "1k", proto, way)
				row = append(row, fmt.Sprintf("%s / %s / %s / %s", ms(medianOf(s, lookupOf)),
					ms(medianOf(s, connectOf)), ms(medianOf(s, firstOf)), ms(medianOf(s, lastOf))))
			}
			t.rows = append(t.rows, row)
		}
	}
	return t
}

// placesOf returns the cities of the measurements, in the lab's order.
func placesOf(r *report) (all []string) {
	for _, c := range cities() {
		if len(r.find(string(c.place), "1k", "h1", wayHit)) > 0 {
			all = append(all, string(c.place))
		}
	}
	return all
}

func (r *report) faultTable() table {
	t := table{"What goes wrong: 50 visits a second in Helsinki, 10 in the other cities, each over a new connection",
		[]string{"fault", "visitors", "failed", "well after", "p50, p99 before", "meanwhile", "after",
			"what they got meanwhile", "from"}, nil,
		"A page counts as failed if it is not complete after 5 s. *Well after*: the start of the last visit that failed. *Two answers*: the name server answers with two edges, and clients try the next one as browsers do (RFC 8305, and once more when a connection breaks). " +
			"In the faults of name servers and of the resolver without Client Subnets, visitors query their resolver each time."}
	for _, f := range r.Faults {
		title := f.Title
		for _, v := range f.Loads {
			well := "at once"
			if failed, _ := v.failed(); failed > 0 {
				well = fmt.Sprintf("%.1f s", max(0, v.Well))
			}
			t.rows = append(t.rows, []string{title, v.Name, v.failures(), well, times(v.Before), times(v.During),
				times(v.After), shares(v.During.Cache), shares(v.During.Served)})
			title = ""
		}
	}
	return t
}

// failures returns the number of failed visits as text.
func (v loadResult) failures() string {
	failed, visits := v.failed()
	return fmt.Sprintf("%d of %d", failed, visits)
}

func times(s loadSum) string { return ms(s.P50) + ", " + ms(s.P99) + " ms" }

// shares formats counts.
func shares(count map[string]int) (s string) {
	for k, key := range sorted(count) {
		if k > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%d %s", count[key], key)
	}
	return s
}
