// Command kaiku is a CDN that a small team runs itself: edges, GeoDNS and what deploys them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)       // a second signal ends the process at once
	slog.SetDefault(newLog(os.Stderr)) // for libraries without a logger of their own
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil:
		return
	case !errors.Is(err, errReported):
		printError(os.Stderr, err)
	}
	os.Exit(exitCode(err))
}

// exitCode returns 2 for a command line that makes no sense, and 1 for all other errors.
func exitCode(err error) int {
	if errors.As(err, new(usageError)) || errors.As(err, new(config.UnknownNode)) {
		return 2
	}
	return 1
}

// usageError is a command line that makes no sense: exit code 2.
type usageError struct{ error }

// errReported is a failure that was already printed.
var errReported = errors.New("failed")

// run runs the program. Tests call it as main does.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return runOn(ctx, config.NodeDir, args, stdout, stderr)
}

// runOn is run with etc as the folder of a node's files.
func runOn(ctx context.Context, etc string, args []string, stdout, stderr io.Writer) error {
	log := newLog(stderr)
	root := &cobra.Command{
		Use:           "kaiku",
		Short:         "A CDN that a small team runs itself",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usage(noArgs),
	}
	// Not cobra's own flag, because that prints through text/template: see TestImports.
	tell := root.Flags().Bool("version", false, "print the version")
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if *tell {
			return printVersion(cmd.OutOrStdout())
		}
		return cmd.Help()
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	demo := demoCommand(log)
	logFlag(demo, log, "warn") // to keep log lines out of the demo's output
	root.AddCommand(demo)
	for _, c := range []*cobra.Command{edgeCommand(log), geodnsCommand(log), controlCommand(log), serveCommand(log)} {
		logFlag(c, log, "")
		root.AddCommand(c)
	}
	root.AddCommand(
		drainCommand(etc, true), drainCommand(etc, false),
		initCommand(), credentialCommand(), checkCommand(), purgeCommand(etc), warmCommand(etc), explainCommand(etc),
		statusCommand(etc), dashboardCommand(etc), deployCommand(), removeCommand(), rotateCommand(), signCommand(),
		dnssecCommand(),
		unitsCommand(),
		healthCommand(etc),
		versionCommand(), manCommand(), planCommand(), benchSelfCommand(), whatIfCommand(etc),
	)
	root.SetArgs(args)
	root.SetOut(plain{stdout})
	root.SetErr(plain{stderr})
	addCompletion(root)
	completeAll(root, etc)
	return root.ExecuteContext(ctx)
}

// usage turns the errors of an argument check into usage errors.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
		}
		return nil
	}
}

// noArgs refuses arguments. For a command with subcommands, an argument is an unknown subcommand,
// and the error suggests a similar one.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasSubCommands():
		return fmt.Errorf("%s takes no arguments, but got %q", cmd.CommandPath(), args[0])
	}
	err := fmt.Errorf("unknown command: %s %s", cmd.CommandPath(), args[0])
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, " or "))
	}
	return err
}

// wants requires exactly the named arguments.
func wants(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return fmt.Errorf("%s takes %s, but got %s", cmd.CommandPath(), strings.Join(names, " "),
				words.Count(len(args), "argument"))
		}
		return nil
	}
}

func configFlag(cmd *cobra.Command, config *string) {
	cmd.Flags().StringVar(config, "config", "fleet.yaml", "`FILE` that describes the fleet")
}
