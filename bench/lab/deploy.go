//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world/machine"
)

// deployResult is what visitors noticed of a rolling deploy.
type deployResult struct {
	Install time.Duration `json:"install"` // duration of the first deploy, to empty machines
	Took    time.Duration `json:"took"`    // duration of the rolling one
	Seen    faultResult   `json:"seen"`
}

// machine returns the folder of a host that gets deploys.
func (l *lab) machine(host string) string { return filepath.Join(l.dir, "machines", host) }

func (l *lab) machineLog(host string) string { return filepath.Join(l.dir, host+".machine.log") }

// deployHosts returns the hosts that get deploys. The short version leaves out most: eight
// machines, one after the other, take three minutes.
func (l *lab) deployHosts() []string {
	if l.short {
		return []string{"hel1"}
	}
	return fleetHosts()
}

// deploys lets `kaiku deploy` install the fleet on empty machines, and then roll out another
// version while visitors come. It ends what the machines ran for other parts.
func (l *lab) deploys(ctx context.Context, r *report) error {
	fleet, err := fleetFile("", l.ttl, l.maxDisconnected)
	if err != nil {
		return err
	}
	config := filepath.Join(l.dir, "deployed.yaml")
	if err := os.WriteFile(config, []byte(fleet), 0o600); err != nil {
		return err
	}
	if err := l.boot(ctx); err != nil {
		return err
	}
	next, err := l.nextVersion()
	if err != nil {
		return err
	}
	res := &deployResult{}
	hosts := strings.Join(l.deployHosts(), ", ")
	l.say("a first deploy to %s", hosts)
	if res.Install, err = l.deploy(ctx, "deploy-first.log", config, l.kaiku); err != nil {
		return err
	}
	l.say("it took %v", res.Install.Round(time.Second))
	if err := l.ready(ctx); err != nil {
		return err
	}
	if err := l.warm(ctx); err != nil {
		return err
	}
	f := fault{name: partDeploy, title: "a rolling deploy of another version to " + hosts, loads: l.usual(),
		for_: l.ttl}
	f.happen = func(ctx context.Context, l *lab) (err error) {
		res.Took, err = l.deploy(ctx, "deploy-rolling.log", config, next)
		return err
	}
	seen, err := l.try(ctx, f)
	if seen != nil {
		res.Seen = *seen
		r.Deploy = res
	}
	return err
}

// boot turns the fleet's hosts into machines, and one host into that of an operator with a key to
// them.
func (l *lab) boot(ctx context.Context) error {
	keys := filepath.Join(l.dir, operator, ".ssh")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return err
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
		filepath.Join(keys, "id_ed25519")).CombinedOutput(); err != nil {
		return fmt.Errorf("make the operator's key: %w: %s", err, out)
	}
	for _, host := range l.deployHosts() {
		if l.process(host) != nil {
			l.kill(host)
		}
		if err := machine.Prepare(l.machine(host), filepath.Join(keys, "id_ed25519.pub")); err != nil {
			return err
		}
		// When unshare ends, process 1 of the machine ends, and with it all others.
		p, err := l.world.Talk(host, l.machineLog(host),
			append([]string{"unshare", "--mount", "--pid", "--fork", "--kill-child", l.self},
				machine.Args(l.machine(host))...)...)
		if err != nil {
			return err
		}
		l.runs(host, p)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("no SSH server there after 30 s"))
	defer cancel()
	for _, host := range l.deployHosts() {
		if err := l.booted(ctx, host); err != nil {
			said, bad := os.ReadFile(l.machineLog(host))
			return fmt.Errorf("boot %s: %w: %s", host, errors.Join(err, bad), said)
		}
	}
	return nil
}

// booted waits until a machine's SSH server listens.
func (l *lab) booted(ctx context.Context, host string) error {
	for {
		c, err := l.world.Dial(ctx, host, "tcp", "127.0.0.1:22")
		if err == nil {
			return c.Close()
		}
		select {
		case <-l.process(host).Ended():
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// nextVersion makes another version of kaiku: it appends bytes to the program, which changes the
// checksum and nothing else.
func (l *lab) nextVersion() (string, error) {
	b, err := os.ReadFile(l.kaiku)
	if err != nil {
		return "", err
	}
	next := filepath.Join(l.dir, "kaiku-next")
	return next, os.WriteFile(next, append(b, "another"...), 0o755)
}

// deploy makes the operator deploy a version, and returns how long that took. Its output is in the
// file log.
func (l *lab) deploy(ctx context.Context, log, config, binary string) (time.Duration, error) {
	log = filepath.Join(l.dir, log)
	began := time.Now()
	out, err := l.world.Run(ctx, operator, log, "env", "HOME="+filepath.Join(l.dir, operator), "SSH_AUTH_SOCK=",
		l.kaiku, "deploy", "--config", config, "--binary", binary,
		"--accept-new-host-keys", "--json", "--only", strings.Join(l.deployHosts(), ","))
	took := time.Since(began)
	if err == nil {
		err = allDone(out, len(l.deployHosts()))
	}
	if err != nil {
		said, bad := os.ReadFile(log)
		return took, fmt.Errorf("deploy: %w: %s", errors.Join(err, bad), said)
	}
	return took, nil
}

// allDone parses a deploy's output, a plan and a report, and fails unless want nodes were changed.
func allDone(out []byte, want int) error {
	var plan, report struct {
		Nodes []struct{ Node, Outcome string }
	}
	lines := json.NewDecoder(bytes.NewReader(out))
	if err := errors.Join(lines.Decode(&plan), lines.Decode(&report)); err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	for _, n := range report.Nodes {
		if n.Outcome != "done" {
			return fmt.Errorf("%s is %s", n.Node, n.Outcome)
		}
	}
	if len(report.Nodes) != want {
		return fmt.Errorf("%d nodes were changed, want %d", len(report.Nodes), want)
	}
	return nil
}

// table returns what visitors noticed as a table.
func (d *deployResult) table() table {
	t := table{fmt.Sprintf("A rolling deploy by `kaiku deploy`, which took %v", d.Took.Round(time.Second)),
		[]string{"visitors", "failed", "p50, p99, longest before", "meanwhile", "after", "what they got meanwhile",
			"from"}, nil,
		fmt.Sprintf("The operator is in Helsinki, and the machines have OpenSSH's server, a stand-in for systemd that does what the units say (bench/world/machine), and kaiku by a first deploy, which took %v. Control nodes, "+
			"name servers and edges get another version one at a time; an edge is drained for the TTL of its names and 5 s before, so that its clients are with the next edge meanwhile. *Meanwhile* is until a TTL after the deploy's end.", d.Install.Round(time.Second))}
	for _, v := range d.Seen.Loads {
		row := []string{v.Name, v.failures()}
		for _, s := range []loadSum{v.Before, v.During, v.After} {
			row = append(row, fmt.Sprintf("%s, %s, %s ms", ms(s.P50), ms(s.P99), ms(s.Most)))
		}
		t.rows = append(t.rows, append(row, shares(v.During.Cache), shares(v.During.Served)))
	}
	return t
}
