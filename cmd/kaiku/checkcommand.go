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
		Short: "Tell everything that is wrong with a fleet file and its zones",
		Long: `Tell everything that is wrong with a fleet file and its zones, each thing with its line.

What works but is hardly meant is a warning: it does not make check fail, and nodes log it when they start.
The fleet's name servers are asked for the serials of their zones, to find those that would go backwards.`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fileArgument(cmd, args, &fleetFile); err != nil {
				return err
			}
			if info, err := os.Stat(fleetFile); err == nil && info.IsDir() {
				return usageError{fmt.Errorf("%s is a folder: did you mean %s?", fleetFile, filepath.Join(fleetFile, "fleet.yaml"))}
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
	cmd.Flags().BoolVar(&offline, "offline", false, "don't ask the fleet's name servers for the serials of their zones")
	return cmd
}

// fileArgument takes the fleet file that is given without --config.
func fileArgument(cmd *cobra.Command, args []string, config *string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.Flags().Changed("config") && *config != args[0] {
		return usageError{fmt.Errorf("there are two files: %s and --config %s; see %s --help", args[0], *config, cmd.CommandPath())}
	}
	if *config = args[0]; !exists(*config) {
		return usageError{fmt.Errorf("there is no file %s", *config)}
	}
	return nil
}
