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

How fast is a site for users in Finland if its origin is in the US? `+"`make lab`"+` builds a small internet on one machine, measures, and writes this page (root, Linux, half an hour). It measures what users notice, what fails
when parts of the fleet fail, how long a purge takes to reach all edges, and what users notice of a rolling deploy. Measured on %s.

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
		together = fmt.Sprintf(" At its first start, the fleet was ready after %v.", r.Together.Round(time.Second))
	}
	fmt.Fprintf(b, `## The world

Each of %d machines is a network namespace with one TUN device. A router in user space passes packets between them, and delays each by the time that it would take on a real path. Everything else is real: the
kernel's TCP and UDP (%s), kaiku, nginx as the origin, PowerDNS Recursor as the resolvers, and clients in Go that make a new connection for each visit and resume no session.

- In Helsinki, New York and Singapore: a client, a caching resolver that sends Client Subnets, an edge (hel1, nyc1, sin1) and a control node (c1, c2, c3). The name servers are in Helsinki and New York. These are
  the roles that `+"`kaiku init`"+` gives to three machines, but here each role has a machine of its own. The origin is in Washington: nginx over TLS 1.3 with HTTP/1.1 and HTTP/2. It has no HTTP/3, so HTTP/3 is compared with
  HTTP/2 directly to the origin. The operator has a machine in Helsinki.
- Clients have a line of 200 Mbit/s down and 50 up, and %v more on each round trip; servers have 1 Gbit/s. The router drops a packet that would have to wait more than 100 ms for a line. Within a city, a round trip takes %v.
- The fleet file has the defaults, except for a TTL of %v for edge names and `+"`max_disconnected: %v`"+`.%s

| round trip | |
|---|---|
`, len(hosts()), r.TCP, world.Access, world.InCity, r.TTL, r.Disconnected, together)
	for _, t := range world.RoundTrips() {
		fmt.Fprintf(b, "| %s–%s | %d ms |\n", t.A, t.B, t.RTT.Milliseconds())
	}
	fmt.Fprintf(b, "\nThese are %s. A test holds each to what light in fibre can do.\n\n", world.Source)
}
