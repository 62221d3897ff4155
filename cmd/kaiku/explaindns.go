package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/geodns"
)

func explainDNSCommand(etc string) *cobra.Command {
	var fleetFile, client string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "dns NAME --client IP",
		Short: "Explain which edges a client gets for a name, and why",
		Long: `Explain which edges a client gets for a name, and why.

The command reads the fleet file, probes each edge once from this machine, and then chooses edges as
a name server does. Name servers probe the edges too, and may find another state: their metric
kaiku_dns_node_healthy shows it.`,
		Args: usage(wants("NAME")),

		ValidArgsFunction: completeHosts(etc, "", ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			addr, err := netip.ParseAddr(client)
			if err != nil {
				return usageError{fmt.Errorf("--client %q: want an IP address", client)}
			}
			if !cmd.Flags().Changed("config") {
				fleetFile = fleetHere(etc)
			}
			f, zones, err := config.Load(fleetFile)
			if err != nil {
				return err
			}
			s := &geodns.Server{Log: slog.New(slog.DiscardHandler)}
			if err := s.Reload(f.GeoDNSConfig(zones)); err != nil {
				return err
			}
			s.Probe(cmd.Context())
			x, err := s.Explain(args[0], addr)
			if err != nil {
				return fmt.Errorf("explain: %w", err)
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(x)
			}
			return printChoice(cmd.OutOrStdout(), x)
		},
	}
	configFlag(cmd, &fleetFile)
	cmd.Flags().StringVar(&client, "client", "",
		"`IP` address of the client, or of its resolver if the resolver sends no client subnet")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// sourceText describes where a location comes from.
func sourceText(source string) string {
	switch source {
	case "locate":
		return "geodns.locate"
	case "geoip":
		return "the geoip database"
	}
	return "the built-in table of countries"
}

func printChoice(out io.Writer, x *geodns.Explanation) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "name\t%s in the zone %s\n", x.Name, x.Zone)
	if x.Place == nil {
		fmt.Fprintf(w, "client\t%s, whose place is unknown: a name server then uses the place of the client's resolver\n", x.Client)
	} else {
		country := ""
		if x.Country != "" {
			country = x.Country + ", "
		}
		fmt.Fprintf(w, "client\t%s at %.2f, %.2f (%sfrom %s, for all of %s)\n", x.Client, x.Place.Lat, x.Place.Lon,
			country, sourceText(x.Source), x.Network)
	}
	fmt.Fprintf(w, "answers\t%d, with scope /%d if the query has the client's full address\n", x.Answers, x.Scope)
	if x.IPv6 != "" {
		fmt.Fprintf(w, "IPv6\t%s\n", x.IPv6)
	}
	fmt.Fprintf(w, "sharing\tnodes in the same place share clients by network, here %s\n\n", x.Sharing)
	fmt.Fprintln(w, "node\tdistance\tsame place as\tweight\tstate\tload\tsheds\tanswered\twhy")
	for _, n := range x.Nodes {
		state := "healthy"
		switch {
		case !n.Healthy:
			state = "unhealthy"
		case n.Draining:
			state = "draining"
		case n.Stale:
			state = "behind"
		}
		if n.Dead != "" {
			state += ", but not at " + n.Dead
		}
		answered := "-"
		switch {
		case n.A && n.AAAA:
			answered = "A, AAAA"
		case n.A:
			answered = "A"
		case n.AAAA:
			answered = "AAAA"
		}
		fmt.Fprintf(w, "%s\t%.0f km\t%s\t%.0f\t%s\t%.0f %%\t%.0f %%\t%s\t%s\n", n.Node, n.Distance, n.Group, n.Weight,
			state, n.Load*100, n.Shed*100, answered, n.Reason)
	}
	return w.Flush()
}
