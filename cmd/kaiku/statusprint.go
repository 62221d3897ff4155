package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/origin"
)

func (r *fleetReport) print(out io.Writer, verbose bool) error {
	ready := 0
	for _, n := range r.nodes {
		if n.Live && n.Ready {
			ready++
		}
	}
	if len(r.nodes) > 0 {
		fmt.Fprintf(out, "%d of %s ready", ready, words.Count(len(r.nodes), "node"))
	} else {
		fmt.Fprint(out, "the edge answers")
	}
	if len(r.problems) == 0 {
		fmt.Fprintln(out, ", no problems")
	} else {
		fmt.Fprintf(out, ", %s:\n", words.Count(len(r.problems), "problem"))
	}
	for _, p := range r.problems {
		fmt.Fprintln(out, "  "+p)
	}
	if len(r.nodes) > 0 {
		if err := r.printNodes(out); err != nil {
			return err
		}
	}
	if len(r.edges) == 0 {
		return nil
	}
	if err := r.printEdges(out); err != nil || len(r.edges) > 1 && !verbose {
		return err
	}
	for _, st := range r.edges {
		if err := printStore(out, st); err != nil {
			return err
		}
		if err := printOrigins(out, st.Origins); err != nil {
			return err
		}
	}
	return nil
}

// printNodes writes the fleet as a table.
func (r *fleetReport) printNodes(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nnode\troles\tregion\tstate\tload\tpurges\tup for\tversion")
	for _, n := range r.nodes {
		state, load, purges, up := "ready", "-", "-", "-"
		switch {
		case !n.Live && r.alone:
			state = "no answer"
		case !n.Live:
			state = "offline"
		case !n.Ready:
			state = "behind"
		case n.Draining:
			state = "draining"
		}
		if slices.Contains(n.Roles, config.RoleEdge) && !n.Started.IsZero() {
			load, purges = fmt.Sprintf("%.0f %%", n.Load*100), fmt.Sprint(n.Purges)
			if n.Behind > 0 {
				purges += fmt.Sprintf(", %d behind", n.Behind)
			}
		}
		if n.Live {
			up = roundTime(time.Since(n.Started))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Node, strings.Join(n.Roles, ","), cmp.Or(n.Region, "-"),
			state, load, purges, up, cmp.Or(shortVersion(n.Version), "-"))
	}
	return w.Flush()
}

// printEdges prints a line for each edge, and a total.
func (r *fleetReport) printEdges(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nedge\trequests\thits\terrors\tsent\tobjects\tdisk\torigins\tcertificates")
	var all admin.Status
	for _, st := range r.edges {
		edgeLine(w, st)
		all.Traffic.Requests += st.Traffic.Requests
		all.Traffic.Hits += st.Traffic.Hits
		all.Traffic.Errors += st.Traffic.Errors
		all.Traffic.Bytes += st.Traffic.Bytes
		all.Store.Objects += st.Store.Objects
		all.Store.Bytes += st.Store.Bytes
		all.Store.Disk += st.Store.Disk
		all.Origins = append(all.Origins, st.Origins...)
		all.Certificates = append(all.Certificates, st.Certificates...)
	}
	if all.Name = "all"; len(r.edges) > 1 {
		edgeLine(w, &all)
	}
	return w.Flush()
}

func edgeLine(w io.Writer, st *admin.Status) {
	t, s := st.Traffic, st.Store
	fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", st.Name, t.Requests, share(t.Hits, t.Requests),
		share(t.Errors, t.Requests), roundSize(int64(t.Bytes)),
		s.Objects, share(uint64(s.Bytes), uint64(s.Disk)), originsText(st.Origins), certificatesText(st.Certificates))
}

// share returns part as a percentage of whole, or "-" if whole is 0.
func share(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", float64(part)/float64(whole)*100)
}

// originsText returns how many origin servers are up.
func originsText(pools []origin.Status) string {
	up, all := 0, 0
	for _, p := range pools {
		for _, s := range p.Servers {
			if s.State == "self" {
				continue
			}
			if all++; s.Up() {
				up++
			}
		}
	}
	if up == all {
		return fmt.Sprintf("%d up", up)
	}
	return fmt.Sprintf("%d of %d up", up, all)
}

// certificatesText returns the time until the first certificate expires, or how many are missing.
func certificatesText(list []certs.Status) string {
	if len(list) == 0 {
		return "-"
	}
	missing := 0
	least := list[0].DaysLeft
	for _, c := range list {
		switch {
		case c.DaysLeft == nil:
			missing++
		case least == nil || *c.DaysLeft < *least:
			least = c.DaysLeft
		}
	}
	if missing > 0 {
		return fmt.Sprintf("%d of %d missing", missing, len(list))
	}
	return days(*least)
}

func days(n float64) string {
	if n < 3 {
		return fmt.Sprintf("%.0f hours", n*24)
	}
	return fmt.Sprintf("%.0f days", n)
}

// shortVersion shortens a commit hash to 12 digits.
func shortVersion(v string) string {
	if len(v) == 40 {
		return v[:12]
	}
	return v
}

// roundTime rounds a duration for people.
func roundTime(d time.Duration) string {
	switch {
	case d < 0:
		return "0s" // the clocks of two machines differ
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// printStore prints what the store of an edge holds and what it did.
func printStore(out io.Writer, st *admin.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	s := st.Store
	fmt.Fprintf(w, "\nedge\t%s\n", st.Name)
	fmt.Fprintf(w, "objects\t%d\n", s.Objects)
	fmt.Fprintf(w, "disk\t%s of %s, %d segments\n", roundSize(s.Bytes), roundSize(s.Disk), s.Segments)
	fmt.Fprintf(w, "memory\t%s\n", roundSize(int64(s.Memory)))
	fmt.Fprintf(w, "written\t%s\n", roundSize(int64(s.Stored)))
	fmt.Fprintf(w, "rewritten\t%s, %d objects\n", roundSize(int64(s.Rewritten)), s.Rewrites)
	fmt.Fprintf(w, "evicted\t%d objects for the budget, %d for the free-space floor; %d segments\n", s.Evicted,
		s.EvictedFloor, s.Dropped)
	fmt.Fprintf(w, "purge records\t%d\n", s.Purges)
	fmt.Fprintf(w, "damaged objects\t%d\n", s.Damaged)
	fmt.Fprintf(w, "refused\t%d writes at the free-space floor, %d bodies too large\n", s.Refused, s.RefusedLarge)
	for _, c := range st.Certificates {
		left := "none yet"
		if c.DaysLeft != nil {
			left = days(*c.DaysLeft)
		}
		fmt.Fprintf(w, "certificate\t%s (%s): %s\n", c.Name, c.From, left)
	}
	return w.Flush()
}

// printOrigins prints a table of the origin servers.
func printOrigins(out io.Writer, pools []origin.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\norigin\tserver\tstate\trequests\tfailed\tactive\tconnections\treused\twhy")
	for _, p := range pools {
		for _, s := range p.Servers {
			state := s.State
			if s.Backup {
				state += " (backup)"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", p.Site, s.Server, state, s.Requests,
				failedRequests(s), s.InFlight, s.Connections, share(s.Reused, s.Requests), cmp.Or(s.Why, "-"))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range pools {
		if p.Panic {
			fmt.Fprintf(out, "%s: most servers look unhealthy, so the edge uses every server that accepts connections\n", p.Site)
		}
		if p.Waiting > 0 || p.Refused > 0 {
			fmt.Fprintf(out, "%s: %d requests are queued, %d were refused (queue full, or origin.queue_timeout expired)\n", p.Site, p.Waiting, p.Refused)
		}
	}
	return nil
}

// roundSize rounds a number of bytes for people.
func roundSize(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/(1<<10), 0
	for ; size >= 1<<10 && unit < 3; unit++ {
		size /= 1 << 10
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGT"[unit])
}
