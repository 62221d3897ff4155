package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
)

func geodnsCommand(log *slog.Logger) *cobra.Command {
	var fleetFile, nodeName string
	var over node.Overrides
	cmd := &cobra.Command{
		Use:   "geodns --config fleet.yaml --node NAME",
		Short: "Run the name server of a node",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkAddresses(over); err != nil {
				return err
			}
			p, err := node.New(fleetFile, nodeName, []string{config.RoleGeoDNS}, over, log)
			if err != nil {
				return err
			}
			return p.Run(cmd.Context())
		},
	}
	configFlag(cmd, &fleetFile)
	cmd.Flags().StringVar(&nodeName, "node", "", "this node's `NAME`")
	cmd.Flags().StringSliceVar(&over.Listen, "listen", nil,
		"`ADDRESS` for UDP and TCP; separate several by commas, or repeat the flag (default geodns.listen of the fleet file, or :53)")
	return cmd
}
