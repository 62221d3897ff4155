package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/edge/admin"
)

// statusTime limits how long one node may take to report its status.
const statusTime = 15 * time.Second

// nodeAnswer is the response of a node that was queried.
type nodeAnswer struct {
	Node   string        `json:"node"`
	Error  string        `json:"error,omitempty"` // why the node can't be queried
	Status *admin.Status `json:"status,omitempty"`
}

func statusCommand(etc string) *cobra.Command {
	api := adminAPI{etc: etc}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the fleet: problems, traffic, origins, certificates, purges",
		Long: `Show the state of the fleet.

First come the problems, then a table of the nodes and a table of the edges. The table of edges
counts from the start of each edge: requests (from clients and from other edges), the percentage of
hits, and the percentage of errors (status 500 to 599).

With --config, status queries all nodes over SSH. On a node, it queries that node, which also shows
what the control plane knows about the others. If there is only one edge, status also shows its
store and its origin servers; --verbose shows these for every edge.`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			nodes, err := api.open(cmd)
			if err != nil {
				return fmt.Errorf("status: %w", err)
			}
			defer nodes.close()
			ctx := cmd.Context()
			answers := make([]nodeAnswer, len(nodes.list))
			nodes.each(ctx, func(i int, n *adminNode) error {
				var st admin.Status
				err := n.call(ctx, statusTime, "GET", "/v1/status", nil, &st)
				answers[i].Status = &st
				return err
			})
			answered := 0
			for i, n := range nodes.list {
				answers[i].Node = n.name
				if n.err == nil {
					answered++
				} else {
					answers[i] = nodeAnswer{Node: n.name, Error: n.err.Error()}
				}
			}
			if answered == 0 {
				return fmt.Errorf("status: %w", nodes.err(ctx))
			}
			if asJSON {
				return printStatusJSON(cmd.OutOrStdout(), nodes, answers)
			}
			return newReport(nodes.fleet, answers).print(cmd.OutOrStdout(), api.verbose)
		},
	}
	api.flags(cmd)
	api.nodeFlag(cmd, "`NODE` to query (with --config; default all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printStatusJSON prints the status as the queried node returns it. With --config, it prints the
// statuses of all nodes.
func printStatusJSON(out io.Writer, nodes *adminNodes, answers []nodeAnswer) error {
	if !nodes.overSSH() {
		return json.NewEncoder(out).Encode(answers[0].Status)
	}
	return json.NewEncoder(out).Encode(map[string]any{"nodes": answers})
}
