package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and its date, and the version of Go",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printVersion(cmd.OutOrStdout())
		},
	}
}

func printVersion(out io.Writer) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{GoVersion: runtime.Version()}
	}
	_, err := io.WriteString(out, versionText(node.Version(), info))
	return err
}

// versionText returns the version, the commit and its date as far as the build knows them, and the
// version of Go.
func versionText(version string, info *debug.BuildInfo) string {
	set := map[string]string{}
	for _, s := range info.Settings {
		set[s.Key] = s.Value
	}
	commit := cmp.Or(set["vcs.revision"], "unknown")
	if set["vcs.modified"] == "true" {
		commit += " (with uncommitted changes)"
	}
	return fmt.Sprintf("kaiku %s\ncommit: %s\ndate: %s\ngo: %s\n", version, commit, cmp.Or(set["vcs.time"], "unknown"),
		info.GoVersion)
}
