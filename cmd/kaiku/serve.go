package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/edge"
	"github.com/kaiku-cdn/kaiku/geodns"
	"github.com/kaiku-cdn/kaiku/origin"
)

// nodeProcess is what a process runs of a node, and how it takes a changed fleet file.
type nodeProcess struct {
	config string
	name   string
	log    *slog.Logger
	fixed  map[string]string // see Fleet.fixed
	taken  string            // sum of the fleet file that it runs
	parts  []part
	edge   *edgeNode      // nil if not run
	dns    *geodns.Server // nil if not run
	admin  *edge.Server   // what has the admin listener; nil if none is run
	sites  siteMaker      // of the edge
	keep   *config.Keeper
	files  []string // that the fleet file names; they are watched like itself
}

// overrides are flags that come before the fleet file.
type overrides struct {
	edge   config.Edge
	listen []string // of geodns
}

// check finds flags that are no addresses.
func (o *overrides) check() error {
	flags := []struct{ flag, addr string }{{"--listen", o.edge.HTTP}, {"--admin", o.edge.Admin}}
	for _, addr := range o.listen {
		flags = append(flags, struct{ flag, addr string }{"--listen", addr})
	}
	for _, f := range flags {
		if err := config.CheckListen(f.addr); err != nil {
			return usageError{fmt.Errorf("%s: %w", f.flag, err)}
		}
	}
	return nil
}

// makeSites makes the edge's sites of a fleet file.
func (p *nodeProcess) makeSites(f *config.Fleet) (siteSet, error) {
	m := p.sites
	m.fleet = f
	if m.node = f.Node(m.node.Name); m.node == nil {
		return siteSet{}, fmt.Errorf("node %s is not in the file any more", p.sites.node.Name)
	}
	if p.edge != nil {
		m.before = p.edge.sites
	}
	return m.make()
}

// close gives back what newNode opened.
func (p *nodeProcess) close() error {
	if p.edge == nil {
		return nil
	}
	p.edge.setSites(siteSet{})
	return p.edge.store.Close()
}

// run runs the parts and takes changes of the fleet file until ctx ends.
func (p *nodeProcess) run(ctx context.Context) error {
	in, err := takeInherited()
	if err != nil {
		return errors.Join(err, p.close())
	}
	if p.edge != nil {
		p.edge.ListenTCP = in.listen
	}
	if p.dns != nil {
		p.dns.ListenTCP = in.listen
	}
	parts := append([]part{reloader{p}}, p.parts...)
	return runParts(ctx, append(parts, readiness{in, p.status(), p.log})...)
}

// status is what the process tells systemd: with files that it can't use, it did not take all.
func (p *nodeProcess) status() string {
	if err := p.keep.Err(); err != nil {
		return deploy.NotTaken(p.taken, p.taken, err)
	}
	return deploy.Taken(p.taken)
}

func serveCommand(log *slog.Logger) *cobra.Command {
	var config, node string
	cmd := &cobra.Command{
		Use:   "serve --config fleet.yaml --node NAME",
		Short: "Run every role that a node has",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := newNode(config, node, nil, overrides{}, log)
			if err != nil {
				return err
			}
			return p.run(cmd.Context())
		},
	}
	configFlag(cmd, &config)
	nodeFlag(cmd, &node)
	return cmd
}

func controlCommand(log *slog.Logger) *cobra.Command {
	var fleetFile, node string
	cmd := &cobra.Command{
		Use:   "control --config fleet.yaml --node NAME",
		Short: "Run the control plane of a node: the log of purges and the registry, on an embedded NATS JetStream server",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := newNode(fleetFile, node, []string{config.RoleControl}, overrides{}, log)
			if err != nil {
				return err
			}
			return p.run(cmd.Context())
		},
	}
	configFlag(cmd, &fleetFile)
	cmd.Flags().StringVar(&node, "node", "", "this node's `NAME`")
	return cmd
}

func geodnsCommand(log *slog.Logger) *cobra.Command {
	var fleetFile, node string
	var over overrides
	cmd := &cobra.Command{
		Use:   "geodns --config fleet.yaml --node NAME",
		Short: "Run the name server of a node",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := over.check(); err != nil {
				return err
			}
			p, err := newNode(fleetFile, node, []string{config.RoleGeoDNS}, over, log)
			if err != nil {
				return err
			}
			return p.run(cmd.Context())
		},
	}
	configFlag(cmd, &fleetFile)
	cmd.Flags().StringVar(&node, "node", "", "this node's `NAME`")
	cmd.Flags().StringSliceVar(&over.listen, "listen", nil, "`ADDRESS` for UDP and TCP, or several, with commas or with the flag again (default geodns.listen of the fleet file, or :53)")
	return cmd
}

func edgeCommand(log *slog.Logger) *cobra.Command {
	var fleetFile, node, originURL, host string
	var over overrides
	cmd := &cobra.Command{
		Use:   "edge --origin URL | edge --config fleet.yaml --node NAME",
		Short: "Run an edge: for one origin, or for a node of the fleet",
		Long: `Run an edge.

With --origin it needs no file: it answers every host and fetches what is missing from that origin.
An https origin that is given by name is sent that name as Host and in TLS; --host says otherwise.
With --config and --node it is that node's edge; other flags come before what the file says.`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if originURL != "" && fleetFile != "" {
				return usageError{errors.New("give --origin or --config, not both: with --config the origin is in the fleet file")}
			}
			if originURL == "" && fleetFile == "" {
				return usageError{errors.New("an edge needs --origin URL, or --config fleet.yaml and --node NAME; see kaiku edge --help")}
			}
			if host != "" && (fleetFile != "" || !config.IsHost(host)) {
				return usageError{fmt.Errorf("--host %s: want a name, or client, together with --origin; in a fleet file it is the site's origin.host", host)}
			}
			if err := over.check(); err != nil {
				return err
			}
			if over.edge.Disk != 0 && over.edge.Disk < config.MinDisk {
				return usageError{fmt.Errorf("--disk %s is less than the %s that a store needs", over.edge.Disk, config.Size(config.MinDisk))}
			}
			if fleetFile != "" {
				p, err := newNode(fleetFile, node, []string{config.RoleEdge}, over, log)
				if err != nil {
					return err
				}
				return p.run(cmd.Context())
			}
			n, err := flagEdge(originURL, host, over.edge, log)
			if err != nil {
				return err
			}
			return runParts(cmd.Context(), n)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&fleetFile, "config", "", "`FILE` that describes the fleet")
	fl.StringVar(&node, "node", "", "this node's `NAME`")
	fl.StringVar(&originURL, "origin", "", "fetch misses from `URL`: http://host[:port] or https://host[:port]")
	fl.StringVar(&host, "host", "", "`HOST` sent to the origin: a name, or client for what the client asked for (default the name of an https origin, else client)")
	fl.StringVar(&over.edge.HTTP, "listen", "", "`ADDRESS` for clients (default :8080, or edge.http of the fleet file)")
	fl.StringVar(&over.edge.Admin, "admin", "", "`ADDRESS` for purges and metrics (default 127.0.0.1:9080)")
	fl.StringVar(&over.edge.Data, "data", "", "`FOLDER` of the cache (default kaiku-data here, or edge.data of the fleet file)")
	fl.Var(&over.edge.Disk, "disk", "budget of the cache on disk, or edge.disk of the fleet file")
	fl.Var(&over.edge.Memory, "memory", "budget of the cache in RAM, or edge.memory of the fleet file")
	fl.Lookup("disk").DefValue, fl.Lookup("memory").DefValue = config.EdgeDefaults().Disk.String(), config.EdgeDefaults().Memory.String()
	return cmd
}

// flagEdge makes the edge of one origin that answers every host.
func flagEdge(originURL, host string, e config.Edge, log *slog.Logger) (*edgeNode, error) {
	var o config.OriginURL
	if err := o.UnmarshalText([]byte(originURL)); err != nil {
		return nil, usageError{fmt.Errorf("--origin: %w", err)}
	}
	if e.Admin != "" && !edge.IsLoopback(e.Admin) {
		return nil, usageError{fmt.Errorf("--admin %s: an address other than loopback needs a token, and a token needs a fleet file (secrets.admin_token): give one of 127.0.0.1, or --config", e.Admin)}
	}
	d := config.EdgeDefaults()
	e.HTTP, e.Admin, e.Data = cmp.Or(e.HTTP, ":8080"), cmp.Or(e.Admin, d.Admin), cmp.Or(e.Data, "kaiku-data")
	e.Disk, e.Memory, e.Peer = cmp.Or(e.Disk, d.Disk), cmp.Or(e.Memory, d.Memory), ""
	pool := &origin.Pool{Name: "default", Log: log, Host: host, Flags: true, Servers: []origin.Server{{URL: (*url.URL)(o.URL)}}}
	if err := pool.Start(); err != nil {
		return nil, err
	}
	n, err := newEdge(e, "", newRegistry(), log)
	if err != nil {
		return nil, err
	}
	n.setSites(siteSet{sites: []*edge.Site{{Name: "default", Origin: &origin.Route{Origin: pool}}}, pools: map[string]*origin.Pool{"": pool}})
	log.Info("edge", "origin", originURL, "listen", e.HTTP, "admin", e.Admin, "data", e.Data, "disk", e.Disk.String())
	return n, nil
}
