//go:build linux

package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// page writes the report as Markdown. svg is the chart, in the same folder.
func page(r *report, svg string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# The Finland case, over a simulated ocean

A user in Finland, an origin in the US: this page is written by `+"`make lab`"+` (root, Linux, half an hour), which builds a small internet on one machine and measures what that user feels, what goes wrong when
parts of it fail, how long a purge takes to be true everywhere, and what is noticed of a rolling deploy. Measured on %s.

`, strings.Split(r.Time, "T")[0])
	if svg != "" {
		fmt.Fprintf(&b, "![Time to the first and to the last byte from Helsinki](%s)\n\n", filepath.Base(svg))
	}
	met := 0
	for _, g := range r.Goals {
		if g.Met {
			met++
		}
	}
	fmt.Fprintf(&b, "## Goals\n\n%d of %d are met.\n\n| | goal | measured |\n|---|---|---|\n", met, len(r.Goals))
	for _, g := range r.Goals {
		mark := "met"
		if !g.Met {
			mark = "**not met**"
		}
		figure := g.Figure
		if g.Why != "" {
			figure += ". " + g.Why
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", mark, cell(g.What), cell(figure))
	}
	b.WriteString("\n")
	r.writeWorld(&b)
	for _, t := range r.tables() {
		fmt.Fprintf(&b, "## %s\n\n", t.title)
		row := func(cells []string) {
			for _, c := range cells {
				fmt.Fprintf(&b, "| %s ", cell(c))
			}
			b.WriteString("|\n")
		}
		row(t.head)
		b.WriteString(strings.Repeat("|---", len(t.head)) + "|\n")
		for _, cells := range t.rows {
			row(cells)
		}
		b.WriteString("\n")
		if t.note != "" {
			fmt.Fprintf(&b, "%s\n\n", t.note)
		}
	}
	return b.Bytes()
}

// cell escapes a text for a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// writeWorld describes the simulated world.
func (r *report) writeWorld(b *bytes.Buffer) {
	together := ""
	if r.Together > 0 { // otherwise a deploy started the fleet
		together = fmt.Sprintf(" The fleet took %v to come together for the first time.", r.Together.Round(time.Second))
	}
	fmt.Fprintf(b, `## The world

Each of %d machines is a network namespace with one TUN device; a router in user space moves the packets between them and holds each for the time that it would be on its way. All above that is real: the
kernel's TCP and UDP (%s), kaiku, nginx as the origin, PowerDNS Recursor as the resolvers, and clients in Go that make a new connection for each visit and resume no session.

- In Helsinki, New York and Singapore: a client, a caching resolver that sends Client Subnets, an edge (hel1, nyc1, sin1) and a control node (c1, c2, c3). The name servers are in Helsinki and New York, which is what
  `+"`kaiku init`"+` makes of three machines, but that each role has a machine of its own here. The origin is in Washington: nginx over TLS 1.3 with HTTP/1.1 and HTTP/2. It has no HTTP/3, so that HTTP/3 is compared with
  HTTP/2 straight to the origin. Who deploys has a machine in Helsinki.
- Clients have a line of 200 Mbit/s down and 50 up, and %v more on each round trip; servers have 1 Gbit/s. A packet that would wait for longer than 100 ms for a line is dropped. Within a city a round trip takes %v.
- One fleet file for all: edge names with a TTL of %v, everything else as it comes but `+"`max_disconnected: %v`"+`.%s

| round trip | |
|---|---|
`, len(hosts()), r.TCP, world.Access, world.InCity, r.TTL, r.Disconnected, together)
	for _, t := range world.RoundTrips() {
		fmt.Fprintf(b, "| %s–%s | %d ms |\n", t.A, t.B, t.RTT.Milliseconds())
	}
	fmt.Fprintf(b, "\nThese are %s. A test holds each to what light in fibre can do.\n\n", world.Source)
}
