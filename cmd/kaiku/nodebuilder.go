package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// nodeBuilder makes the parts of a node, one for each of its roles.
type nodeBuilder struct {
	*nodeProcess
	fleet *config.Fleet
	node  *config.Node
	zones []*geodns.Zone
	over  overrides
	key   *fleet.Key // nil if the fleet has none
	ties  *link      // to the control plane; nil without one
	reg   *prometheus.Registry
}

// newNode makes the parts of a node for some of its roles; nil means all of them. Nothing listens
// yet. After an error nothing stays open.
func newNode(fleetFile, name string, roles []string, over overrides, log *slog.Logger) (*nodeProcess, error) {
	keep := config.NewKeeper(name, roles, log)
	f, zones, err := config.LoadNode(fleetFile, keep)
	if err != nil {
		return nil, err
	}
	n, err := f.WantNode("--node", name)
	if err != nil {
		return nil, err
	}
	applyLog(log, f.Log)
	f.LogWarnings(log)
	b := &nodeBuilder{fleet: f, node: n, zones: zones, over: over, reg: newRegistry()}
	if b.key, err = keyIfNeeded(f, n, log); err != nil {
		return nil, err
	}
	if b.ties, err = newLink(f, n, b.key, log); err != nil {
		return nil, err
	}
	if b.ties != nil {
		b.reg.MustRegister(fleetCollector{b.ties})
	}
	if roles == nil {
		roles = n.Roles
	}
	b.nodeProcess = &nodeProcess{config: fleetFile, name: name, log: log, keep: keep, files: f.Watched(), fixed: fixedBy(f, name), taken: f.Sum()}
	for _, role := range roles {
		if !n.Has(role) {
			return nil, fmt.Errorf("node %s does not have the role %s", name, role)
		}
	}
	if err := b.build(roles); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b.nodeProcess, nil
}

func (b *nodeBuilder) build(roles []string) error {
	add := map[string]func() error{config.RoleEdge: b.addEdge, config.RoleGeoDNS: b.addGeoDNS, config.RoleControl: b.addControl}
	for _, role := range roles {
		if err := add[role](); err != nil {
			return err
		}
	}
	if b.edge == nil && b.node.Admin != "" {
		admin, err := adminOnly(b.fleet, b.node, b.ties, b.reg, b.log)
		if err != nil {
			return err
		}
		b.admin = admin
		b.parts = append(b.parts, edge.Admin{Server: admin})
	}
	if b.admin != nil {
		b.admin.Faults = b.keep.Faults
	}
	if b.ties != nil && (b.edge != nil || b.dns != nil || b.node.Admin != "") {
		b.parts = append(b.parts, b.ties)
	}
	return nil
}

// addEdge makes the part that caches. Flags come before the fleet file.
func (b *nodeBuilder) addEdge() error {
	f := b.fleet
	e, o := f.EdgeOf(b.node), b.over.edge
	e.HTTP, e.Admin, e.Data = cmp.Or(o.HTTP, e.HTTP), cmp.Or(o.Admin, e.Admin), cmp.Or(o.Data, e.Data)
	e.Disk, e.Memory = cmp.Or(o.Disk, e.Disk), cmp.Or(o.Memory, e.Memory)
	tokens, err := f.Tokens(e.Admin)
	if err != nil {
		return err
	}
	peers, err := peerTLS(f, b.node, b.key)
	if err != nil {
		return err
	}
	if peers == nil {
		e.Peer = ""
	}
	b.sites = siteMaker{node: b.node, peers: peers, log: b.log}
	sites, err := b.makeSites(f)
	if err != nil {
		return err
	}
	if b.edge, err = newEdge(e, b.name, b.reg, b.log); err != nil {
		sites.close(siteSet{})
		return err
	}
	b.edge.PeerTLS, b.edge.PurgeFrom = peers, e.PurgeFrom
	b.edge.SetTokens(tokens)
	b.admin = b.edge.Server
	if b.edge.Certificates, err = newCertificates(f, e, b.key, b.ties); err != nil {
		return err
	}
	if l := e.AccessLog; l != nil {
		out, err := openLog(f, "access log", l)
		if err != nil {
			return err
		}
		b.edge.AccessLog = &edge.AccessLog{Out: out, Sample: l.Sample}
	}
	if b.key != nil { // so that sessions go on at another edge
		if b.edge.Secrets, err = b.key.EdgeSecrets(); err != nil {
			return err
		}
	}
	b.edge.setSites(sites)
	if b.ties != nil {
		b.ties.follow(b.edge, e)
	}
	b.parts = append(b.parts, b.edge)
	return nil
}

// addGeoDNS makes the name server.
func (b *nodeBuilder) addGeoDNS() error {
	listen := b.over.listen
	if len(listen) == 0 {
		listen = b.fleet.DNSListen()
	}
	dns := &geodns.Server{Addr: listen[0], More: listen[1:], Log: b.log, Registerer: b.reg, Identity: b.name}
	if b.key != nil { // so that a cookie of one server is good at all of them
		var err error
		if dns.CookieSecrets, err = b.key.CookieSecrets(); err != nil {
			return err
		}
	}
	if l := b.fleet.GeoDNS.QueryLog; l != nil {
		out, err := openLog(b.fleet, "query log", l)
		if err != nil {
			return err
		}
		dns.QueryLog = &geodns.QueryLog{Log: slog.NewJSONHandler(out, nil), Sample: l.Sample}
	}
	if b.ties != nil {
		dns.Registry = b.ties.reports
		b.ties.answerChallenges(dns)
	}
	if err := dns.Reload(b.fleet.GeoDNSConfig(b.zones)); err != nil {
		return fmt.Errorf("geodns: %w", err)
	}
	b.dns = dns
	keep := b.keep
	keep.Commit(dns)
	b.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kaiku_dns_unusable_files",
		Help: "Zones and geoip databases that can't be used, in whose place their last good copy is, or nothing."},
		func() float64 { return float64(len(keep.Faults())) }))
	if b.ties != nil {
		b.parts = append(b.parts, dnsPart{dns, b.ties})
	} else {
		b.parts = append(b.parts, dns)
	}
	return nil
}

// addControl makes the control node.
func (b *nodeBuilder) addControl() error {
	c, err := newControl(b.fleet, b.node, b.key, b.log)
	if err != nil {
		return err
	}
	if b.ties != nil {
		b.ties.control = c
	}
	b.parts = append(b.parts, c)
	return nil
}
