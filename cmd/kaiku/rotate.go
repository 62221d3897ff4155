package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/fleet"
)

func rotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace a secret of the fleet, without losing a request",
		Long: `Replace a secret of the fleet, without losing a request.

Rotate makes the new secret on this machine and adds it to the secret's file. It deploys that file,
so that nodes accept the old secret and the new one. In the last step it deploys the file without
the old secret. If a rotation stops, run the command again: it continues with the next step, which
it finds in the file.`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(rotateKeyCommand(), rotateTokenCommand(), rotateOtherCommand())
	return cmd
}

func rotateKeyCommand() *cobra.Command {
	var r rotator
	cmd := &cobra.Command{
		Use:   "fleet-key --config fleet.yaml",
		Short: "Replace the fleet key in three deploys that restart each node",
		Long: `Replace the fleet key in three deploys. Each deploy drains and restarts the nodes as usual.

After the first deploy, nodes accept the old key and the new one. After the second, they use the new
one. After the third, they refuse the old one. Deploys don't change the credentials of nodes: make
new ones after the first deploy (kaiku credential).`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.run(cmd, "fleet key", func(f *config.Fleet) (string, error) { return f.Secrets.FleetKey, nil })
		},
	}
	r.key = true
	r.flags(cmd)
	return cmd
}

func rotateTokenCommand() *cobra.Command {
	var r rotator
	cmd := &cobra.Command{
		Use:   "admin-token --config fleet.yaml",
		Short: "Replace the admin token in two deploys that restart nothing",
		Long: `Replace the admin token in two deploys that restart nothing.

After the first deploy, nodes accept the old token and the new one. After the second, they refuse
the old one. On a terminal, rotate asks before the second deploy, so that you can give the new token
to everybody who has the old one.`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.run(cmd, "admin token", func(f *config.Fleet) (string, error) { return f.Secrets.AdminToken, nil })
		},
	}
	r.flags(cmd)
	return cmd
}

func rotateOtherCommand() *cobra.Command {
	var r rotator
	cmd := &cobra.Command{
		Use:   "token FILE --config fleet.yaml",
		Short: "Replace a token of secrets.tokens in two deploys that restart nothing",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.run(cmd, "token "+args[0], func(f *config.Fleet) (string, error) {
				var files []string
				for _, t := range f.Secrets.Tokens {
					if t.File == args[0] {
						return t.File, nil
					}
					files = append(files, t.File)
				}
				return "", usageError{fmt.Errorf("no token of secrets.tokens has the file %s: their files are %s", args[0],
					cmp.Or(strings.Join(files, ", "), "none"))}
			})
		},
	}
	r.flags(cmd)
	return cmd
}

// rotator replaces one secret.
type rotator struct {
	deployFlags
	key       bool // the secret is the fleet key
	step, yes bool
}

func (r *rotator) flags(cmd *cobra.Command) {
	r.deployFlags.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&r.step, "step", false, "do the next step only; run the command again for the step after it")
	f.BoolVar(&r.yes, "yes", false, "don't ask")
}

// run replaces the secret in the file that path returns.
func (r *rotator) run(cmd *cobra.Command, what string, path func(*config.Fleet) (string, error)) error {
	f, _, err := config.Load(r.config)
	if err != nil {
		return err
	}
	named, err := path(f)
	if err != nil {
		return err
	}
	if named == "" {
		return usageError{fmt.Errorf("%s names no file for the %s", r.config, what)}
	}
	if err := r.opened(cmd, func(d *deploy.Deploy, _ *deployFleet) error {
		if slices.ContainsFunc(d.Nodes, func(n deploy.Node) bool {
			return slices.ContainsFunc(n.Files, func(f deploy.File) bool { return f.Path == config.NodeFile(named) })
		}) {
			return nil
		}
		return fmt.Errorf("kaiku deploy doesn't install %s, because its path on nodes is outside %s, or no node needs it: replace it by hand; see docs/deploy.md", named, config.NodeDir)
	}); err != nil {
		return err
	}
	again := strings.Join(append([]string{cmd.CommandPath()}, append(cmd.Flags().Args(), "--config", r.config)...), " ")
	say := func(format string, a ...any) { fmt.Fprintf(cmd.ErrOrStderr(), "rotate: "+format+"\n", a...) }
	steps := &rotation{file: f.LocalFile(named), stages: tokenStages, again: again, once: r.step, say: say,
		deploy: func(context.Context) error { return r.deployFlags.run(cmd) },
		before: func(ctx context.Context) (other, anything bool, err error) {
			err = r.opened(cmd, func(d *deploy.Deploy, _ *deployFleet) error {
				plan, err := d.Plan(ctx)
				if err == nil {
					other, anything = changes(plan, named), !plan.Nothing()
				}
				return err
			})
			return other, anything, err
		},
		taken: func(ctx context.Context, secret string) error {
			return r.opened(cmd, func(d *deploy.Deploy, running *deployFleet) error {
				ctx, cancel := context.WithTimeout(ctx, d.Limit)
				defer cancel()
				if r.key {
					return running.reseal(ctx, overSSH(d))
				}
				say("checking that all nodes accept the new secret")
				return running.accepted(ctx, overSSH(d), secret)
			})
		},
	}
	if r.key {
		steps.stages = keyStages
	}
	if in := terminal(cmd); in != nil && !r.yes && !r.key {
		ask := asker(in, cmd.ErrOrStderr())
		steps.sure = func() (bool, error) {
			answer, err := ask("All nodes accept the old and the new "+what+
				". Give the new one to everybody who uses the old one. Refuse the old one from now on? [y/N] ", false)
			return strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y"), err
		}
	}
	return steps.run(cmd.Context())
}

// opened calls do with a deploy of the files' current content, and closes that.
func (r *rotator) opened(cmd *cobra.Command, do func(*deploy.Deploy, *deployFleet) error) error {
	d, running, err := r.deployFlags.open(cmd)
	if err != nil {
		return err
	}
	return errors.Join(do(d, running), d.Close())
}

// changes reports whether a plan replaces a file on a node that has another version of it.
func changes(p *deploy.Plan, file string) bool {
	for _, n := range p.Nodes {
		for _, c := range n.Files {
			if c.What == "change" && c.Path == config.NodeFile(file) {
				return true
			}
		}
	}
	return false
}

// reach connects to the machine of a node. dial reaches the node's listeners until close is called.
type reach func(ctx context.Context, n *config.Node) (dial deploy.DialFunc, close func() error, err error)

// overSSH connects to machines as a deploy does.
func overSSH(d *deploy.Deploy) reach {
	return func(ctx context.Context, n *config.Node) (deploy.DialFunc, func() error, error) {
		i := slices.IndexFunc(d.Nodes, func(o deploy.Node) bool { return o.Name == n.Name })
		c, err := d.Dialer.Dial(ctx, n.Name, d.Nodes[i].SSH)
		if err != nil {
			return nil, nil, err
		}
		return c.DialContext, c.Close, nil
	}
}

// accepted waits until the admin listeners of all nodes accept a token. Nodes load a changed file
// some moments after a deploy.
func (d *deployFleet) accepted(ctx context.Context, to reach, token string) error {
	for i := range d.fleet.Nodes {
		n := &d.fleet.Nodes[i]
		addr := n.Admin
		if n.Has(config.RoleEdge) {
			addr = d.fleet.EdgeOf(n).Admin
		}
		if addr == "" {
			continue
		}
		dial, end, err := to(ctx, n)
		if err == nil {
			err = errors.Join(repeat(ctx, func() error {
				status, _, err := d.get(ctx, dial, http.MethodGet, onNode(addr), "/.kaiku/health", token)
				if err == nil && status == http.StatusUnauthorized {
					err = errors.New("it does not accept the new token")
				}
				return err
			}), end())
		}
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	return nil
}

// reseal encrypts the certificate data that edges share with the fleet key in use, before the old
// key is given up. Edges do that too, but some time later.
func (d *deployFleet) reseal(ctx context.Context, to reach) error {
	if d.fleet.TLS.ACME == nil || d.key == nil {
		return nil
	}
	var errs []error
	for i := range d.fleet.Nodes {
		if n := &d.fleet.Nodes[i]; n.Has(config.RoleControl) {
			err := d.resealAt(ctx, to, n)
			if err == nil {
				return nil
			}
			errs = append(errs, fmt.Errorf("node %s: %w", n.Name, err))
		}
	}
	return fmt.Errorf("encrypt the vault of certificates with the new fleet key: %w", errors.Join(errs...))
}

// resealTime limits the attempt through one control node.
const resealTime = time.Minute

// resealAt is reseal through one control node.
func (d *deployFleet) resealAt(ctx context.Context, to reach, n *config.Node) error {
	ctx, cancel := context.WithTimeout(ctx, resealTime)
	defer cancel()
	secrets, err := d.key.CertificateSecrets()
	if err != nil {
		return err
	}
	dial, end, err := to(ctx, n)
	if err != nil {
		return err
	}
	client, refused, err := d.client(ctx, n, dial, "rotate", fleet.RoleEdge)
	if err != nil {
		return errors.Join(err, end())
	}
	vault := &fleet.Vault{Client: client, Secrets: secrets}
	err = repeat(ctx, func() error { return vault.Reseal(ctx) })
	client.Close()
	if err != nil {
		err = errors.Join(err, refused.get())
	}
	return errors.Join(err, end())
}

// repeat calls try until it returns no error or ctx ends.
func repeat(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
