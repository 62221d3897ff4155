package main

import (
	"log/slog"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/demo"

	"github.com/spf13/cobra"
)

func demoCommand(log *slog.Logger) *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a demo on loopback: an origin, two edges and a name server",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), cmd.OutOrStdout(), once, log)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false,
		"send requests as a client in Finland and as a client in the US, print the results, and exit")
	return cmd
}
