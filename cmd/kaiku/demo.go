package main

import (
	"log/slog"

	"github.com/spf13/cobra"
)

func demoCommand(log *slog.Logger) *cobra.Command { return &cobra.Command{Use: "demo"} }
