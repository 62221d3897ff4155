package node

import (
	"cmp"
	"log/slog"
	"net/url"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// ForOrigin makes an edge without a fleet file. It fetches from one origin, and serves all hosts.
// Settings that e leaves out have defaults. host is the Host for the origin: "" means the host of u
// if that is https, and the client's Host otherwise.
func ForOrigin(u *url.URL, host string, e config.Edge, log *slog.Logger) (*Edge, error) {
	d := config.EdgeDefaults()
	e.HTTP, e.Admin, e.Data = cmp.Or(e.HTTP, ":8080"), cmp.Or(e.Admin, d.Admin), cmp.Or(e.Data, "kaiku-data")
	e.Disk, e.Memory, e.Peer = cmp.Or(e.Disk, d.Disk), cmp.Or(e.Memory, d.Memory), ""
	pool := &origin.Pool{Name: "default", Log: log, Host: host, Flags: true, Servers: []origin.Server{{URL: u}}}
	if err := pool.Start(); err != nil {
		return nil, err
	}
	n, err := newEdge(e, "", newRegistry(), log)
	if err != nil {
		pool.Close()
		return nil, err
	}
	n.setSites(siteSet{sites: []*site.Site{{Name: "default", Origin: &origin.Route{Origin: pool}}},
		pools: map[string]*origin.Pool{"": pool}})
	log.Info("edge", "origin", u.String(), "listen", e.HTTP, "admin", e.Admin, "data", e.Data, "disk", e.Disk.String())
	return n, nil
}

// Standalone makes an edge without connections to other nodes: it has no peers, no control plane
// and no TLS. It connects to origins by dial; nil means the default.
func Standalone(f *config.Fleet, n *config.Node, dial Dialer, log *slog.Logger) (*Edge, error) {
	m := &siteMaker{fleet: f, node: n, dial: dial, log: log}
	sites, err := m.make()
	if err != nil {
		return nil, err
	}
	conf := f.EdgeOf(n)
	conf.Peer = ""
	e, err := newEdge(conf, n.Name, newRegistry(), log)
	if err != nil {
		sites.close(siteSet{})
		return nil, err
	}
	e.setSites(sites)
	e.Reporter.Location = locationOf(n)
	return e, nil
}
