package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// deployFlags are the command line flags of deploy.
type deployFlags struct {
	config, batch              string
	only, binaries             []string
	dryRun, acceptNew, asJSON  bool
	losePurgeLog               bool
	settle, healthLimit, every time.Duration
	warned                     bool // the warnings about the files were printed
	zones                      []*geodns.Zone
}

func deployCommand() *cobra.Command {
	var fl deployFlags
	cmd := &cobra.Command{
		Use:   "deploy [FILE | --config FILE]",
		Short: "Install and update the nodes of a fleet over SSH, without losing a request",
		Long: `Install and update the nodes of a fleet over SSH: the first time, and for each new version or
configuration. Nodes are machines with Debian or Ubuntu.

Deploy reads the state of all nodes, prints its plan, and carries it out. It changes control nodes
and name servers one at a time, then edges in batches. It drains each node before it restarts it.
New control nodes join the control plane, and control nodes that the fleet file no longer has leave
it. The log of purges is kept.

If a node is unhealthy after its change, deploy restores its previous version and files, and stops.
After Ctrl-C, deploy completes the nodes that it is changing, and stops.`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fileArgument(cmd, args, &fl.config); err != nil {
				return err
			}
			return fl.run(cmd)
		},
	}
	fl.flags(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&fl.only, "only", nil, "`NODE`s to deploy to (default all)")
	f.BoolVar(&fl.dryRun, "dry-run", false, "print the plan and change nothing")
	f.BoolVar(&fl.losePurgeLog, "lose-purge-log", false,
		"deploy even if the log of purges is lost; edges then mark everything in their caches as stale")
	return cmd
}

// flags adds the flags that all deploying commands share.
func (fl *deployFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	configFlag(cmd, &fl.config)
	f.BoolVar(&fl.asJSON, "json", false, "print the plan and its result as JSON")
	f.StringVar(&fl.batch, "batch", "25%", "`PART` of the edges that may be out of service at a time")
	f.BoolVar(&fl.acceptNew, "accept-new-host-keys", false,
		"accept host keys that are not in known_hosts without asking")
	f.StringArrayVar(&fl.binaries, "binary", nil,
		"program `FILE` for the nodes, or a folder with such files; repeat the flag for several processor architectures (default: this program)")
	f.DurationVar(&fl.settle, "settle", 0,
		"how long to wait after a drain (default the longest TTL of edge names plus 5s)")
	f.DurationVar(&fl.healthLimit, "health-limit", 2*time.Minute, "how long a node may take to become healthy")
	f.DurationVar(&fl.every, "health-every", time.Second, "how often to check the health of a node")
}

func (fl *deployFlags) run(cmd *cobra.Command) error {
	d, running, err := fl.open(cmd)
	if err != nil {
		return err
	}
	err = fl.deploy(cmd.Context(), d, running.fleet, cmd.OutOrStdout())
	return errors.Join(err, d.Close())
}

// open reads the files and prepares a deploy of their current content.
func (fl *deployFlags) open(cmd *cobra.Command) (*deploy.Deploy, *deployFleet, error) {
	batch, err := strconv.Atoi(strings.TrimSuffix(fl.batch, "%"))
	if err != nil || batch < 1 || batch > 100 {
		return nil, nil, usageError{fmt.Errorf("--batch %s: want a value from 1%% to 100%%", fl.batch)}
	}
	f, zones, err := config.Load(fl.config)
	if err != nil {
		return nil, nil, err
	}
	fl.zones = zones
	for _, name := range fl.only {
		if _, err := f.WantNode("--only", name); err != nil {
			return nil, nil, err
		}
	}
	err = f.Audit(cmd.Context(), zones, config.Audit{Files: true, Serials: !fl.warned, Strict: true})
	if !fl.warned {
		f.PrintWarnings(cmd.ErrOrStderr())
		fl.warned = true
	}
	if err != nil {
		return nil, nil, err
	}
	if len(fl.binaries) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, nil, err
		}
		fl.binaries = []string{self}
	}
	binaries, err := deploy.OpenBinaries(fl.binaries...)
	if err != nil {
		return nil, nil, err
	}
	nodes, err := deployNodes(f, fl.config)
	if err != nil {
		return nil, nil, err
	}
	running, err := newDeployFleet(f)
	if err != nil {
		return nil, nil, err
	}
	running.guardSecrets(nodes, fl.only)
	dialer := newDialer(cmd)
	dialer.AcceptNew = fl.acceptNew
	return &deploy.Deploy{Nodes: nodes, Only: fl.only, Binaries: binaries, Dialer: dialer, Fleet: running, Batch: batch,
		Settle: cmp.Or(fl.settle, settleTime(f)),
		Limit:  fl.healthLimit, Every: fl.every, Out: cmd.ErrOrStderr()}, running, nil
}

// terminal returns the terminal on which to ask the operator, or nil if input is not a terminal.
func terminal(cmd *cobra.Command) *os.File {
	if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		return in
	}
	return nil
}

// deploy makes a plan, prints it, applies it and prints the result.
func (fl *deployFlags) deploy(ctx context.Context, d *deploy.Deploy, f *config.Fleet, out io.Writer) error {
	plan, err := d.Plan(ctx)
	if err != nil {
		return err
	}
	if err := fl.print(out, plan); err != nil || fl.dryRun || plan.Nothing() {
		return err
	}
	if err := fl.mayLose(d, plan); err != nil {
		return err
	}
	report, err := d.Apply(ctx, plan)
	if err := errors.Join(err, fl.print(out, report)); err != nil || fl.asJSON {
		return err
	}
	next := nextSteps(f, plan, fl.zones, fl.config)
	if dark := unreachedNames(f, ctx, plan); len(dark) > 0 {
		next = "These addresses accept no connection from this machine. Does a firewall block it?\n    " + strings.Join(dark,
			"\n    ") + "\n" + next
	}
	if next != "" {
		_, err = fmt.Fprintf(out, "\n%s", next)
	}
	return err
}

// mayLose asks the operator to confirm a plan that loses the log of purges. It returns an error if
// the answer is not yes, or if there is nobody to ask.
func (fl *deployFlags) mayLose(d *deploy.Deploy, plan *deploy.Plan) error {
	if plan.Control == nil || plan.Control.Loses == "" || fl.losePurgeLog {
		return nil
	}
	if ask := d.Dialer.Ask; ask != nil {
		answer, err := ask("Edges will mark everything in their caches as stale. Continue? [y/N] ", false)
		if err != nil {
			return err
		}
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return nil
		}
	}
	return errors.New("nothing was changed, because the deploy would lose the log of purges, and edges would mark everything in their caches as stale: see the plan, or give --lose-purge-log")
}

// print prints a plan or a report.
func (fl *deployFlags) print(out io.Writer, v io.WriterTo) error {
	if fl.asJSON {
		return json.NewEncoder(out).Encode(v)
	}
	_, err := v.WriteTo(out)
	return err
}

// newDialer returns a Dialer with the operator's SSH settings. It asks questions on the terminal,
// if there is one.
func newDialer(cmd *cobra.Command) *deploy.Dialer {
	d := deploy.FromSystem()
	if in := terminal(cmd); in != nil {
		d.Ask = asker(in, cmd.ErrOrStderr())
	}
	return d
}

// asker returns a function that asks a question on a terminal. hidden suppresses the echo.
func asker(in *os.File, out io.Writer) func(string, bool) (string, error) {
	lines := bufio.NewReader(in)
	return func(question string, hidden bool) (string, error) {
		fmt.Fprint(out, question)
		if hidden {
			b, err := term.ReadPassword(int(in.Fd()))
			fmt.Fprintln(out)
			return string(b), err
		}
		return lines.ReadString('\n')
	}
}

// settleTime returns how long resolvers may still send clients to a drained edge: the longest TTL
// of the edge names, and the time until name servers learn of the drain.
func settleTime(f *config.Fleet) time.Duration {
	longest := time.Duration(0)
	for _, z := range f.GeoDNS.Zones {
		for _, e := range z.Edges {
			longest = max(longest, cmp.Or(time.Duration(e.TTL), 30*time.Second))
		}
	}
	if longest == 0 {
		return 0 // no name server of the fleet sends clients to edges
	}
	return longest + 5*time.Second
}

// newDeployFleet reads the operator's secrets, with which a deploy queries the nodes.
func newDeployFleet(f *config.Fleet) (*deployFleet, error) {
	out := &deployFleet{fleet: f}
	if f.Secrets.AdminToken != "" {
		var err error
		if out.tokens, err = config.ReadTokens(f.LocalFile(f.Secrets.AdminToken)); err != nil {
			return nil, fmt.Errorf("read the admin token, which a deploy needs to query the nodes: %w", err)
		}
	}
	if clients, _ := f.ControlAddresses(); len(clients) > 0 && f.Secrets.FleetKey != "" {
		key, err := fleet.ReadKey(f.LocalFile(f.Secrets.FleetKey))
		if err != nil {
			return nil, fmt.Errorf("read the fleet key, which a deploy of control nodes needs: %w", err)
		}
		out.key = &key
	}
	return out, nil
}
