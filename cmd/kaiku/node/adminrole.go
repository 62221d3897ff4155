package node

import (
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// adminRole is the part of an admin listener that a reload changes.
type adminRole struct {
	address string // to listen on
	tokens  *purge.Tokens
	sites   *site.Table
}

// addAdmin makes the admin listener of a node that is no edge.
func (b *builder) addAdmin() error {
	tokens, err := b.fleet.Tokens(b.node.Admin)
	if err != nil {
		return err
	}
	p := &purge.Purger{Node: b.node.Name, Sites: &site.Table{}, Tokens: &purge.Tokens{}, Log: b.log}
	s := &admin.Server{Version: Version(), Address: b.node.Admin, Setting: "admin of the node", Purger: p,
		Faults: b.keep.Faults, Registry: b.reg, Log: b.log}
	p.Sites.Set(namedSites(b.fleet))
	p.Tokens.Set(tokens)
	if b.plane != nil {
		p.Purges, p.Edges, s.Fleet = purgeLog{b.plane}, fleetView{b.plane}, fleetView{b.plane}
		b.plane.sites = p.Sites
	}
	b.adminServer = s
	b.admin = &adminRole{s.Address, p.Tokens, p.Sites}
	b.parts = append(b.parts, s)
	return nil
}

// namedSites returns the sites with nothing but their hosts, for tokens and credentials that are
// limited to some sites.
func namedSites(f *config.Fleet) []*site.Site {
	var sites []*site.Site
	for _, s := range f.Sites {
		sites = append(sites, &site.Site{Name: s.Name, Hosts: config.LowerHosts(s.Hosts)})
	}
	return sites
}
