package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/selfbench"
)

func benchSelfCommand() *cobra.Command {
	o := selfbench.Options{}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench-self",
		Short: "Measure what this machine spends on hits, misses, TLS, DNS and connections",
		Long: `Measure what this machine spends on hits, misses, TLS handshakes, DNS queries, idle connections and
the store. The command takes about a minute, uses loopback addresses only, and stops by itself. It
loads all cores, so don't run it on a node that serves clients. kaiku plan --bench reads its JSON.`,
		Example: `  kaiku bench-self
  kaiku bench-self --json >self.json`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if runtime.GOOS != "linux" {
				return fmt.Errorf("bench-self reads the CPU time of another process, which it can do on Linux only")
			}
			if o.Time < 100*time.Millisecond || o.Time > time.Minute {
				return usageError{fmt.Errorf("--time %s: want 100ms to 1m", o.Time)}
			}
			if o.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("bench-self: %w", err)
			}
			o.Version = node.Version()
			o.Told = func(what string) { fmt.Fprintf(cmd.ErrOrStderr(), "measuring %s\n", what) }
			costs, err := selfbench.Run(cmd.Context(), o)
			if err != nil {
				return fmt.Errorf("bench-self: %w", err)
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(costs)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), costs)
			return err
		},
	}
	cmd.Flags().DurationVar(&o.Time, "time", 2500*time.Millisecond, "`DURATION` of load for each of 17 measurements")
	cmd.Flags().StringVar(&o.Dir, "dir", "", "`FOLDER` on the disk to measure (default: that of temporary files)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
