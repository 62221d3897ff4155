package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/edge"
	"github.com/kaiku-cdn/kaiku/origin"
)

func statusCommand() *cobra.Command {
	var api adminAPI
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell what an edge holds, what its store did and how its origins are",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st edge.Status
			if err := api.call(cmd.Context(), "GET", "/v1/status", nil, &st); err != nil {
				return fmt.Errorf("status: %w", err)
			}
			if len(st.Nodes) > 0 && !asJSON {
				if err := printNodes(cmd.OutOrStdout(), st.Nodes); err != nil {
					return err
				}
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(st)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			s := st.Store
			fmt.Fprintf(w, "edge\t%s\n", st.Name)
			fmt.Fprintf(w, "objects\t%d\n", s.Objects)
			fmt.Fprintf(w, "disk\t%s of %s, %d segments\n", roundSize(s.Bytes), roundSize(s.Disk), s.Segments)
			fmt.Fprintf(w, "memory\t%s\n", roundSize(int64(s.Memory)))
			fmt.Fprintf(w, "stored\t%s\n", roundSize(int64(s.Stored)))
			fmt.Fprintf(w, "written again\t%s, %d objects\n", roundSize(int64(s.Rewritten)), s.Rewrites)
			fmt.Fprintf(w, "evicted\t%d objects for the budget, %d for the free-space floor; %d segments\n", s.Evicted, s.EvictedFloor, s.Dropped)
			fmt.Fprintf(w, "purge records\t%d\n", s.Purges)
			fmt.Fprintf(w, "damaged objects\t%d\n", s.Damaged)
			fmt.Fprintf(w, "refused\t%d writes at the free-space floor, %d bodies too large\n", s.Refused, s.RefusedLarge)
			if err := w.Flush(); err != nil {
				return err
			}
			return printOrigins(cmd.OutOrStdout(), st.Origins)
		},
	}
	api.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printNodes writes the fleet as a table.
func printNodes(out io.Writer, nodes []edge.NodeStatus) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "node\troles\tregion\tstate\tload\tpurges\tup for\tversion")
	for _, n := range nodes {
		state := "ready"
		switch {
		case !n.Live:
			state = "not heard of"
		case n.Draining:
			state = "draining"
		case !n.Ready:
			state = "behind"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.0f %%\t%d\t%s\t%s\n", n.Node, strings.Join(n.Roles, ","), n.Region, state, n.Load*100, n.Purges,
			time.Since(n.Started).Round(time.Second), n.Version)
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// printOrigins writes a table of the servers that misses are fetched from.
func printOrigins(out io.Writer, pools []origin.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	var hints []string
	fmt.Fprintln(w, "\norigin\tserver\tstate\trequests\tfailed\tunder way\tconnections\treused\twhy")
	for _, p := range pools {
		for _, s := range p.Servers {
			var failed uint64
			for _, n := range s.Failures {
				failed += n
			}
			state := s.State
			if !s.Up() && s.LastFailure != nil && s.LastFailure.Hint != "" {
				hints = append(hints, fmt.Sprintf("hint for %s: %s\n", p.Site, s.LastFailure.Hint))
			}
			if s.Backup {
				state += " (backup)"
			}
			reused := "-"
			if s.Requests > 0 {
				reused = fmt.Sprintf("%d %%", s.Reused*100/s.Requests)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", p.Site, s.Server, state, s.Requests, failed, s.InFlight, s.Connections, reused, s.Why)
		}
		if p.Panic {
			fmt.Fprintf(w, "%s\tmost servers look unhealthy: all that take connections are used\n", p.Site)
		}
		if p.Waiting > 0 || p.Refused > 0 {
			fmt.Fprintf(w, "%s\tqueue: %d wait, %d were refused\n", p.Site, p.Waiting, p.Refused)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(out, strings.Join(hints, ""))
	return err
}

// roundSize writes a number of bytes for people.
func roundSize(n int64) string {
	for _, u := range sizeUnits {
		if n >= u.bytes && u.bytes > 1 {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
