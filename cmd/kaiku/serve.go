package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
)

func serveCommand(log *slog.Logger) *cobra.Command {
	var fleetFile, nodeName string
	cmd := &cobra.Command{
		Use:   "serve --config fleet.yaml --node NAME",
		Short: "Run a node with all its roles",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := node.New(fleetFile, nodeName, nil, node.Overrides{}, log)
			if err != nil {
				return err
			}
			return p.Run(cmd.Context())
		},
	}
	configFlag(cmd, &fleetFile)
	nodeFlag(cmd, &nodeName)
	return cmd
}
