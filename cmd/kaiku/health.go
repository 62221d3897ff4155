package main

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

func healthCommand(etc string) *cobra.Command {
	var fleetFile, node string
	cmd := &cobra.Command{
		Use:   "health --config fleet.yaml --node NAME",
		Short: "Check the health of the node on this machine as deploy does; exit code 1 if it is unhealthy",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("config") {
				fleetFile = fleetHere(etc)
			}
			f, _, err := config.LoadNode(fleetFile, &config.Keeper{}) // a damaged zone does not matter here
			if err != nil {
				return err
			}
			n, err := f.WantNode("--node", node)
			if node == "" {
				n, err = thisNode(f, etc)
			}
			if err != nil {
				return err
			}
			running, err := newDeployFleet(f)
			if err != nil {
				return needsRoot(err)
			}
			node = n.Name
			if err := running.Healthy(cmd.Context(), node, (&net.Dialer{}).DialContext); err != nil {
				return fmt.Errorf("node %s: %w", node, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "node %s is healthy\n", node)
			if !n.Has(config.RoleEdge) && n.Admin == "" {
				return nil
			}
			st, err := running.status(cmd.Context(), n, (&net.Dialer{}).DialContext)
			if err != nil {
				return fmt.Errorf("node %s: %w", node, err)
			}
			for _, fault := range st.Faults {
				fmt.Fprintln(cmd.OutOrStdout(), "problem: "+fault)
			}
			return nil
		},
	}
	configFlag(cmd, &fleetFile)
	nodeFlag(cmd, &node)
	return cmd
}
