package main

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes the man pages for packages.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write manual pages into a folder that exists",
		Hidden: true,
		Args:   usage(wants("DIR")),
		RunE: func(cmd *cobra.Command, args []string) error {
			day := time.Unix(0, 0).UTC() // a fixed date, so that the same source makes the same pages
			cmd.Root().DisableAutoGenTag = true
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "KAIKU", Section: "1", Source: "Kaiku",
				Manual: "Kaiku", Date: &day}, args[0])
		},
	}
}
