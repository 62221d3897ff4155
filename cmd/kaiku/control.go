package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
)

func controlCommand(log *slog.Logger) *cobra.Command {
	var fleetFile, nodeName string
	cmd := &cobra.Command{
		Use:   "control --config fleet.yaml --node NAME",
		Short: "Run the control node of a fleet: the log of purges and the registry, on an embedded NATS server",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := node.New(fleetFile, nodeName, []string{config.RoleControl}, node.Overrides{}, log)
			if err != nil {
				return err
			}
			return p.Run(cmd.Context())
		},
	}
	configFlag(cmd, &fleetFile)
	cmd.Flags().StringVar(&nodeName, "node", "", "this node's `NAME`")
	return cmd
}
