package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/edge"
)

func statusCommand() *cobra.Command {
	var api adminAPI
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell what an edge holds and what its store did",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st edge.Status
			if err := api.call(cmd.Context(), "GET", "/v1/status", nil, &st); err != nil {
				return fmt.Errorf("status: %w", err)
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
			return w.Flush()
		},
	}
	api.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
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
