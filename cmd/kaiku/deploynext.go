package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// nextSteps returns what is left to do outside of the fleet after a deploy to new machines, or "".
func nextSteps(f *config.Fleet, plan *deploy.Plan, zones []*geodns.Zone, fleetFile string) string {
	isNew := func(n *deploy.NodePlan) bool { return n.From == "" }
	first := !slices.ContainsFunc(plan.Nodes, func(n *deploy.NodePlan) bool { return !isNew(n) })
	var b strings.Builder
	for i, z := range zones {
		if first || slices.ContainsFunc(plan.Nodes,
			func(n *deploy.NodePlan) bool { return isNew(n) && f.Node(n.Node).Has(config.RoleGeoDNS) }) {
			nextZone(f, &b, &f.GeoDNS.Zones[i], z)
		}
	}
	if !first {
		return b.String()
	}
	if len(zones) == 0 {
		b.WriteString("Next: point the names of the sites to the edges, by A and AAAA records:\n")
		for _, s := range f.Sites {
			for i := range f.Nodes {
				if n := &f.Nodes[i]; n.Has(config.RoleEdge) {
					for _, a := range n.Addresses {
						fmt.Fprintf(&b, "    %s  %s\n", s.Hosts[0], a)
					}
				}
			}
		}
	}
	b.WriteString("Then check the fleet and its sites:\n")
	fmt.Fprintf(&b, "    kaiku status --config %s\n", fleetFile)
	scheme := "http"
	if f.Secures() {
		scheme = "https"
	}
	for _, s := range f.Sites {
		fmt.Fprintf(&b, "    %s://%s/\n", scheme, plainHost(s.Hosts))
	}
	return b.String()
}

// unreachedNames returns the public listeners of new nodes that accept no connection from this
// machine. The nodes themselves do reach them, so a firewall is the likely cause.
func unreachedNames(f *config.Fleet, ctx context.Context, plan *deploy.Plan) []string {
	ctx, cancel := context.WithTimeout(ctx, siteDial)
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	var out []string
	for _, p := range plan.Nodes {
		n := f.Node(p.Node)
		for _, l := range f.Listeners(n) {
			if p.From != "" || !slices.Contains([]string{"http", "https", "geodns"}, l.What) || len(n.Addresses) == 0 ||
				admin.IsLoopback(l.Addr) {
				continue
			}
			all.Go(func() {
				addr := config.Reachable(l.Addr, n)
				c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				if err == nil {
					c.Close()
					return
				}
				mu.Lock()
				defer mu.Unlock()
				out = append(out, fmt.Sprintf("%s  %s (%s)", n.Name, addr, l.What))
			})
		}
	}
	all.Wait()
	slices.Sort(out)
	return out
}

// nextZone writes how to delegate a domain to the fleet's name servers.
func nextZone(f *config.Fleet, b *strings.Builder, conf *config.Zone, z *geodns.Zone) {
	name := strings.TrimSuffix(z.Name(), ".")
	fmt.Fprintf(b, "Next, for the domain %s: query the new name servers before you point the domain to them:\n", name)
	asked := name
	if len(conf.Edges) > 0 {
		asked = conf.Edges[0].FQDN(conf)
	}
	for i := range f.Nodes {
		if n := &f.Nodes[i]; n.Has(config.RoleGeoDNS) && len(n.Addresses) > 0 {
			fmt.Fprintf(b, "    dig @%s %s +short\n", n.Addresses[0], asked)
		}
	}
	b.WriteString("At the registrar, set these name servers, with their addresses as glue records. If the domain has DNSSEC now, first remove its DS record:\n")
	for _, ns := range z.NameServers() {
		addrs := make([]string, len(ns.Addrs))
		for i, a := range ns.Addrs {
			addrs[i] = a.String()
		}
		fmt.Fprintf(b, "    %s  %s\n", ns.Name, strings.Join(addrs, " "))
	}
	fmt.Fprintf(b, "Once the registry has the change, this command prints them:\n    dig NS %s +short\n", name)
	if f.TLS.ACME != nil {
		b.WriteString("The edges get certificates within minutes after that.\n")
	}
}

// plainHost returns the first host of a site that is not a wildcard, or else a host that the first
// wildcard covers.
func plainHost(hosts []string) string {
	for _, h := range hosts {
		if !strings.HasPrefix(h, "*.") {
			return h
		}
	}
	return "www" + hosts[0][1:]
}
