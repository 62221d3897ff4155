package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
)

func checkCommand() *cobra.Command {
	var fleetFile string
	var offline bool
	cmd := &cobra.Command{
		Use:   "check [FILE | --config FILE]",
		Short: "Check a fleet file and its zones",
		Long: `Check a fleet file and its zones, and print every error with its line.

Check prints a warning for what works but is probably a mistake. A warning doesn't make check
fail, and nodes log it when they start. Check also queries the fleet's name servers for the
serials of their zones, and reports a serial that would go backwards.`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fileArgument(cmd, args, &fleetFile); err != nil {
				return err
			}
			if info, err := os.Stat(fleetFile); err == nil && info.IsDir() {
				return usageError{fmt.Errorf("%s is a folder: did you mean %s?", fleetFile,
					filepath.Join(fleetFile, "fleet.yaml"))}
			}
			f, zones, err := config.Load(fleetFile)
			if err == nil {
				err = f.Audit(cmd.Context(), zones, config.Audit{Files: true, Serials: !offline})
			}
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return errReported
			}
			but := ""
			if n := f.PrintWarnings(cmd.ErrOrStderr()); n > 0 {
				but = ", with " + words.Count(n, "warning")
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is fine%s: %s, %s, %s\n", fleetFile, but,
				words.Count(len(f.Sites), "site"), words.Count(len(f.Nodes), "node"), words.Count(len(zones), "zone"))
			return err
		},
	}
	configFlag(cmd, &fleetFile)
	cmd.Flags().BoolVar(&offline, "offline", false,
		"don't query the fleet's name servers for the serials of their zones")
	return cmd
}

// fileArgument sets config to a fleet file that is given as an argument, without --config.
func fileArgument(cmd *cobra.Command, args []string, config *string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.Flags().Changed("config") && *config != args[0] {
		return usageError{fmt.Errorf("there are two files: %s and --config %s; see %s --help", args[0], *config,
			cmd.CommandPath())}
	}
	if *config = args[0]; !exists(*config) {
		return usageError{fmt.Errorf("there is no file %s", *config)}
	}
	return nil
}
