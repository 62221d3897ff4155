package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// removeFlags are the command line flags of remove.
type removeFlags struct {
	config, ssh                  string
	lost, dryRun, yes, acceptNew bool
	settle                       time.Duration
}

func removeCommand() *cobra.Command {
	var fl removeFlags
	cmd := &cobra.Command{
		Use:   "remove NODE --config fleet.yaml",
		Short: "Remove a node from the fleet: drain it, stop it, and delete its files from the machine",
		Long: `Remove a node from the fleet: drain it, stop it, and delete its files from the machine.

Remove prints a plan and asks you to confirm it. It drains the node and waits until resolvers no
longer cache its address. Then it stops the node, deletes its data, secrets, units and programs, and
deletes the node from the control plane. You may delete the node from the fleet file before or
afterwards. If the fleet file no longer has it, give its machine by --ssh. If the machine is lost,
use --lost.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return fl.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	configFlag(cmd, &fl.config)
	f.StringVar(&fl.ssh, "ssh", "", "`[USER@]HOST[:PORT]` of the machine (default from the fleet file)")
	f.BoolVar(&fl.lost, "lost", false,
		"the machine is lost and won't come back: only delete the node from the control plane")
	f.BoolVar(&fl.dryRun, "dry-run", false, "print the plan and change nothing")
	f.BoolVar(&fl.yes, "yes", false, "don't ask")
	f.BoolVar(&fl.acceptNew, "accept-new-host-keys", false,
		"accept host keys that are not in known_hosts without asking")
	f.DurationVar(&fl.settle, "settle", 0,
		"how long to wait after the drain (default the longest TTL of edge names plus 5s)")
	return cmd
}

func (fl *removeFlags) run(cmd *cobra.Command, name string) error {
	f, zones, err := config.Load(fl.config)
	if err != nil {
		return err
	}
	if !config.IsNodeName(name) {
		return usageError{fmt.Errorf("%q can't be the name of a node", name)}
	}
	n := f.Node(name)
	target := deploy.Node{Name: name, SSH: fl.ssh}
	last := n != nil && len(f.Nodes) == 1 // removing it ends the fleet
	switch {
	case n != nil && n.Has(config.RoleControl) && !last:
		return fmt.Errorf("node %s is a control node: first delete its role control in %s and deploy, then remove it",
			name, fl.config)
	case fl.lost && fl.ssh != "":
		return usageError{errors.New("--lost is for a machine that can't be reached: give --lost or --ssh, not both")}
	case n != nil && fl.ssh == "":
		target.SSH = sshOf(n)
	case n == nil && fl.ssh == "" && !fl.lost:
		return usageError{fmt.Errorf("%s has no node %s: %s; if you have already deleted it from the file, give its machine by --ssh root@ADDRESS, or --lost", fl.config, name, words.Suggest(name, f.NodeNames()))}
	}
	running, err := newDeployFleet(f)
	if err != nil {
		return err
	}
	nodes, err := deployNodes(f, fl.config)
	if err != nil {
		return err
	}
	dialer := newDialer(cmd)
	dialer.AcceptNew = fl.acceptNew
	d := &deploy.Deploy{Nodes: nodes, Dialer: dialer, Settle: cmp.Or(fl.settle, settleTime(f)), Out: cmd.ErrOrStderr()}
	m := &deploy.Remover{Deploy: d, Target: target, Lost: fl.lost}
	if n != nil && n.Has(config.RoleEdge) {
		m.Notice = noticeTime(f)
	}
	registry := &nodeRegistry{running: running, deploy: d, node: name}
	if running.key != nil && !last {
		m.Registry = registry
	}
	err = fl.remove(cmd, m, f, zones)
	registry.close()
	return errors.Join(err, d.Close())
}

// remove makes a plan, prints it, asks for confirmation and applies it.
func (fl *removeFlags) remove(cmd *cobra.Command, m *deploy.Remover, f *config.Fleet, zones []*geodns.Zone) error {
	plan, err := m.Plan(cmd.Context())
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if _, err := plan.WriteTo(out); err != nil {
		return err
	}
	for _, warning := range lossesWithout(f, m.Target.Name, zones) {
		fmt.Fprintf(out, "  warning: %s\n", warning)
	}
	if fl.dryRun || plan.Nothing() {
		return nil
	}
	if !fl.yes {
		if m.Dialer.Ask == nil {
			return usageError{errors.New("can't ask you to confirm, because the input is not a terminal: give --yes")}
		}
		answer, err := m.Dialer.Ask(fmt.Sprintf("Remove %s (yes/no)? ", m.Target.Name), false)
		if err != nil {
			return err
		}
		if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
			return errors.New("nothing was removed")
		}
	}
	if err := m.Apply(cmd.Context(), plan); err != nil {
		return err
	}
	return afterRemoval(f, out, fl.config, plan, m.Lost)
}

// noticeTime returns how long name servers need to find out that an edge is down, or 0 if the fleet
// has no zones.
func noticeTime(f *config.Fleet) time.Duration {
	if len(f.GeoDNS.Zones) == 0 {
		return 0
	}
	h := f.GeoDNS.Health
	return time.Duration(cmp.Or(h.UnhealthyAfter, 2))*time.Duration(cmp.Or(h.Interval,
		config.Duration(2*time.Second))) + time.Duration(cmp.Or(h.Timeout, config.Duration(time.Second)))
}

// lossesWithout returns what the fleet loses with a node that its file still has.
func lossesWithout(f *config.Fleet, name string, zones []*geodns.Zone) []string {
	n := f.Node(name)
	if n == nil {
		return nil
	}
	var out []string
	others := func(role string) bool {
		return slices.ContainsFunc(f.Nodes, func(o config.Node) bool { return o.Name != name && o.Has(role) })
	}
	if n.Has(config.RoleEdge) && !others(config.RoleEdge) {
		out = append(out, "it is the only edge: without it, nothing serves the sites")
	}
	if n.Has(config.RoleGeoDNS) && !others(config.RoleGeoDNS) {
		out = append(out, "it is the only name server: without it, nothing answers for the zones")
	}
	for _, z := range zones {
		for _, ns := range z.NameServers() {
			if slices.ContainsFunc(ns.Addrs, func(a netip.Addr) bool { return slices.Contains(n.Addresses, a) }) {
				out = append(out, fmt.Sprintf("zone %s lists it as name server %s: first delete that name from the zone and at the registrar, and wait until the TTL of the NS records has expired; until then, resolvers still send it queries, which time out", strings.TrimSuffix(z.Name(), "."), ns.Name))
			}
		}
	}
	for _, s := range f.Sites {
		for _, o := range s.AllOrigins() {
			if o.Shield == name {
				out = append(out, fmt.Sprintf("it is the shield of site %s: without it, edges fetch from the origin directly",
					s.Name))
				break
			}
		}
	}
	return out
}

// afterRemoval prints what is left to do.
func afterRemoval(f *config.Fleet, out io.Writer, config string, plan *deploy.Removal, lost bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "node %s is removed\n", plan.Node)
	if len(plan.Kept) > 0 {
		fmt.Fprintf(&b, "its machine still has files that no deploy installed: %s\n", strings.Join(plan.Kept, ", "))
	}
	if f.Node(plan.Node) != nil {
		fmt.Fprintf(&b, "next: delete it from %s, and deploy that file to the others: kaiku deploy --config %[1]s\n",
			config)
	}
	has, tense := strings.Join(plan.Secrets, ", "), "had"
	if lost {
		has, tense = "the fleet key and the other secrets of its roles", "has"
	}
	if has != "" {
		fmt.Fprintf(&b, "it %s %s: anyone who gets its disk, or a copy of it, may read them", tense, has)
		if lost {
			b.WriteString("; if it comes back, it joins the fleet again")
		}
		fmt.Fprintf(&b, "\nto replace them: kaiku rotate fleet-key --config %s, and kaiku rotate admin-token --config %[1]s\n", config)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
