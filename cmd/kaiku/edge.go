package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/edge/admin"
)

func edgeCommand(log *slog.Logger) *cobra.Command {
	var fleetFile, nodeName, originURL, host string
	var over node.Overrides
	cmd := &cobra.Command{
		Use:   "edge --origin URL | edge --config fleet.yaml --node NAME",
		Short: "Run an edge: for one origin, or for a node of the fleet",
		Long: `Run an edge.

With --origin, the edge needs no file: it answers requests for every host, and fetches misses from
that origin. If the origin is https with a name, the edge sends that name as Host and as TLS server
name; --host changes this. With --config and --node, it runs the edge of that node, and the other
flags override the fleet file.`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if originURL != "" && fleetFile != "" {
				return usageError{errors.New("give --origin or --config, not both: with --config, the fleet file names the origin")}
			}
			if originURL == "" && fleetFile == "" {
				return usageError{errors.New("the edge needs --origin URL, or --config fleet.yaml and --node NAME; see kaiku edge --help")}
			}
			if host != "" && (fleetFile != "" || !config.IsHost(host)) {
				return usageError{fmt.Errorf("--host %s: want a host name, or the word client, together with --origin; with a fleet file, set the site's origin.host instead", host)}
			}
			if err := checkAddresses(over); err != nil {
				return err
			}
			if over.Edge.Disk != 0 && over.Edge.Disk < config.MinDisk {
				return usageError{fmt.Errorf("--disk %s is too small: a store needs at least %s", over.Edge.Disk,
					config.Size(config.MinDisk))}
			}
			if fleetFile != "" {
				p, err := node.New(fleetFile, nodeName, []string{config.RoleEdge}, over, log)
				if err != nil {
					return err
				}
				return p.Run(cmd.Context())
			}
			var o config.OriginURL
			if err := o.UnmarshalText([]byte(originURL)); err != nil {
				return usageError{fmt.Errorf("--origin: %w", err)}
			}
			if over.Edge.Admin != "" && !admin.IsLoopback(over.Edge.Admin) {
				return usageError{fmt.Errorf("--admin %s: outside loopback, the admin listener needs a token, which only a fleet file can set (secrets.admin_token): use an address such as 127.0.0.1:9080, or --config", over.Edge.Admin)}
			}
			n, err := node.ForOrigin(o.URL, host, over.Edge, log)
			if err != nil {
				return err
			}
			return node.Run(cmd.Context(), n)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&fleetFile, "config", "", "`FILE` that describes the fleet")
	fl.StringVar(&nodeName, "node", "", "this node's `NAME`")
	fl.StringVar(&originURL, "origin", "", "fetch misses from `URL`: http://host[:port] or https://host[:port]")
	fl.StringVar(&host, "host", "",
		"`HOST` sent to the origin: a host name, or the word client for the client's Host (default: the name of an https origin, otherwise client)")
	fl.StringVar(&over.Edge.HTTP, "listen", "", "`ADDRESS` for clients (default :8080, or edge.http of the fleet file)")
	fl.StringVar(&over.Edge.Admin, "admin", "", "`ADDRESS` for purges and metrics (default 127.0.0.1:9080)")
	fl.StringVar(&over.Edge.Data, "data", "",
		"`FOLDER` of the cache (default kaiku-data in the current folder, or edge.data of the fleet file)")
	fl.Var(&over.Edge.Disk, "disk", "size of the cache on disk; overrides edge.disk of the fleet file")
	fl.Var(&over.Edge.Memory, "memory", "size of the cache in RAM; overrides edge.memory of the fleet file")
	fl.Lookup("disk").DefValue, fl.Lookup("memory").DefValue = config.EdgeDefaults().Disk.String(),
		config.EdgeDefaults().Memory.String()
	return cmd
}

// checkAddresses returns an error if a flag is not a valid address.
func checkAddresses(o node.Overrides) error {
	flags := []struct{ flag, addr string }{{"--listen", o.Edge.HTTP}, {"--admin", o.Edge.Admin}}
	for _, addr := range o.Listen {
		flags = append(flags, struct{ flag, addr string }{"--listen", addr})
	}
	for _, f := range flags {
		if err := config.CheckListen(f.addr); err != nil {
			return usageError{fmt.Errorf("%s: %w", f.flag, err)}
		}
	}
	return nil
}
