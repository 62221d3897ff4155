package node

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge"
)

// adminOnly makes the server of the admin listener of a node that is no edge. ties may be nil.
func adminOnly(f *config.Fleet, n *config.Node, ties *link, reg *prometheus.Registry, log *slog.Logger) (*edge.Server,
	error) {
	tokens, err := f.Tokens(n.Admin)
	if err != nil {
		return nil, err
	}
	s := &edge.Server{Name: n.Name, Version: Version(), Admin: n.Admin, Registry: reg, Log: log}
	s.SetTokens(tokens)
	if ties != nil {
		s.Purges, s.Fleet = purgeLog{ties}, others{ties}
	}
	if ties != nil {
		ties.sitesSum = s.SitesSum
	}
	s.SetSites(namedSites(f))
	return s, nil
}

// namedSites are the sites with nothing but their hosts, so that tokens and credentials that are
// limited to some know these.
func namedSites(f *config.Fleet) []*edge.Site {
	var sites []*edge.Site
	for _, site := range f.Sites {
		sites = append(sites, &edge.Site{Name: site.Name, Hosts: config.LowerHosts(site.Hosts)})
	}
	return sites
}
