package main

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"
)

func healthCommand(etc string) *cobra.Command {
	var config, node string
	cmd := &cobra.Command{
		Use:   "health --config fleet.yaml --node NAME",
		Short: "Ask the node on this machine whether it does all that its roles ask of it, as deploy does; exit code 1 if not",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("config") {
				config = fleetHere(etc)
			}
			f, _, err := loadNode(config, &keeper{}) // a damaged zone is not what is asked
			if err != nil {
				return err
			}
			n, err := f.wantNode("--node", node)
			if node == "" {
				n, err = f.thisNode(etc)
			}
			if err != nil {
				return err
			}
			running, err := f.newDeployFleet()
			if err != nil {
				return needsRoot(err)
			}
			node = n.Name
			if err := running.Healthy(cmd.Context(), node, (&net.Dialer{}).DialContext); err != nil {
				return fmt.Errorf("node %s: %w", node, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "node %s is healthy\n", node)
			if !n.has(roleEdge) && n.Admin == "" {
				return nil
			}
			st, err := running.status(cmd.Context(), n, (&net.Dialer{}).DialContext)
			if err != nil {
				return fmt.Errorf("node %s: %w", node, err)
			}
			for _, fault := range st.Faults {
				fmt.Fprintln(cmd.OutOrStdout(), "but "+fault)
			}
			return nil
		},
	}
	configFlag(cmd, &config)
	nodeFlag(cmd, &node)
	return cmd
}
