package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	var config string
	var offline bool
	cmd := &cobra.Command{
		Use:   "check [FILE | --config FILE]",
		Short: "Tell everything that is wrong with a fleet file and its zones",
		Long: `Tell everything that is wrong with a fleet file and its zones, each thing with its line.

What works but is hardly meant is a warning: it does not make check fail, and nodes log it when they start.
The fleet's name servers are asked for the serials of their zones, to find those that would go backwards.`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fileArgument(cmd, args, &config); err != nil {
				return err
			}
			if info, err := os.Stat(config); err == nil && info.IsDir() {
				return usageError{fmt.Errorf("%s is a folder: did you mean %s?", config, filepath.Join(config, "fleet.yaml"))}
			}
			f, zones, err := loadFleet(config)
			if err == nil {
				f.auditZones(zones)
				if !offline {
					f.checkSerials(cmd.Context(), zones)
				}
				f.checkFiles()
				f.checkSandbox(f.warnf)
				err = f.file.failure()
			}
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return errReported
			}
			f.printWarnings(cmd.ErrOrStderr())
			but := ""
			if n := len(f.file.warns); n > 0 {
				but = ", with " + count(n, "warning")
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is fine%s: %s, %s, %s\n", config, but,
				count(len(f.Sites), "site"), count(len(f.Nodes), "node"), count(len(zones), "zone"))
			return err
		},
	}
	configFlag(cmd, &config)
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

// printWarnings prints what works but is hardly meant.
func (f *Fleet) printWarnings(w io.Writer) {
	for _, warning := range f.file.warns {
		fmt.Fprintln(w, warning.text("warning: "))
	}
}

// logWarnings is printWarnings for a node.
func (f *Fleet) logWarnings(log *slog.Logger) {
	for _, w := range f.file.warns {
		log.Warn("the fleet file: "+w.msg, "at", fmt.Sprintf("%s:%d:%d", w.file, w.line, w.col))
	}
}
