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
		Short: "Run a demo on loopback: an origin in the US, the edges hel1 and nyc1, and a name server",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), cmd.OutOrStdout(), once, log)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false,
		"request a page as a client in Finland and as one in the US, print the results, and exit")
	return cmd
}
