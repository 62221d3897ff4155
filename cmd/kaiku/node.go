package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kaiku-cdn/kaiku/edge"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/geodns"
	"github.com/kaiku-cdn/kaiku/storage"
)

// part is one of the servers that a process runs.
type part interface {
	Listen(ctx context.Context) error
	Serve(ctx context.Context) error
}

// runParts runs them until ctx ends or one fails, which ends the others.
func runParts(ctx context.Context, parts ...part) error {
	for i, p := range parts {
		if err := p.Listen(ctx); err != nil {
			done, cancel := context.WithCancel(ctx)
			cancel()
			for _, listening := range parts[:i] { // Serve closes what is bound
				err = errors.Join(err, listening.Serve(done))
			}
			return err
		}
	}
	return serveParts(ctx, parts...)
}

// serveParts is runParts for parts that listen already.
func serveParts(ctx context.Context, parts ...part) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(parts))
	for _, p := range parts {
		go func() { ended <- p.Serve(ctx) }()
	}
	var err error
	for range parts {
		err = errors.Join(err, <-ended)
		cancel()
	}
	return err
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// edgeNode is an edge with its store.
type edgeNode struct {
	*edge.Server
	store *storage.Store
	sites siteSet
}

// newEdge opens the store and makes an edge of it.
func newEdge(e Edge, name string, reg *prometheus.Registry, log *slog.Logger) (*edgeNode, error) {
	if err := e.fits(machineMemory(), fileSystem(e.Data), log); err != nil {
		return nil, err
	}
	store, err := storage.Open(storage.Options{Dir: e.Data, Disk: int64(e.Disk), Memory: int64(e.Memory), Log: log})
	if err != nil {
		return nil, err
	}
	return &edgeNode{store: store, Server: &edge.Server{Name: name, Version: version(), HTTP: e.HTTP, HTTPS: e.HTTPS, Admin: e.Admin,
		MaxConnections: e.MaxConnections, MaxPerClient: e.MaxPerClient, DrainTimeout: time.Duration(e.DrainTimeout), NoHitLane: e.HitLane != nil && !*e.HitLane, Peer: e.Peer,
		Store: store, Registry: reg, Log: log}}, nil
}

// setSites replaces what the edge serves; the origins of before end once their requests do.
func (n *edgeNode) setSites(s siteSet) {
	n.SetSites(s.sites)
	n.sites.close(s)
	n.sites = s
}

// Listen binds the listeners, or gives the store back.
func (n *edgeNode) Listen(ctx context.Context) error {
	if err := n.Server.Listen(ctx); err != nil {
		return errors.Join(err, n.store.Close())
	}
	return nil
}

// Serve serves until ctx ends and then closes the store.
func (n *edgeNode) Serve(ctx context.Context) error {
	err := n.Server.Serve(ctx)
	n.setSites(siteSet{})
	return errors.Join(err, n.store.Close())
}

// dialer connects to an origin; nil is the ordinary one.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// adminTokens reads the tokens of the admin API that are good for all; none where the fleet file
// names no file.
func (f *Fleet) adminTokens() ([]string, error) {
	if f.Secrets.AdminToken == "" {
		return nil, nil
	}
	return readTokens(f.path(f.Secrets.AdminToken))
}

// readToken reads the token that is used, the first of its file.
func readToken(file string) (string, error) {
	tokens, err := readTokens(file)
	if err != nil {
		return "", err
	}
	return tokens[0], nil
}

// readTokens reads a file of tokens: the first is used, all are accepted.
func readTokens(file string) ([]string, error) {
	tokens, err := readSecrets(file)
	if err != nil {
		return nil, fmt.Errorf("read the admin token: %w", err)
	}
	return tokens, nil
}

// readSecrets reads a file of secrets, of which one replaces another.
func readSecrets(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	list, err := fleet.SplitSecrets(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return list, nil
}

// readSecret reads a file of one line that is a secret.
func readSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" || strings.ContainsAny(secret, "\r\n\x00") {
		return "", fmt.Errorf("%s: want one line", file)
	}
	return secret, nil
}

// geodnsConfig is what the name servers answer.
func (f *Fleet) geodnsConfig(zones []*geodns.Zone) geodns.Config {
	h := f.GeoDNS.Health
	c := geodns.Config{Zones: zones, Locate: map[netip.Prefix]geodns.Place{},
		Health: geodns.Health{Interval: time.Duration(h.Interval), Timeout: time.Duration(h.Timeout),
			UnhealthyAfter: h.UnhealthyAfter, HealthyAfter: h.HealthyAfter}}
	if r := f.GeoDNS.RateLimit; r != nil {
		c.RateLimit = geodns.RateLimit{Responses: r.Responses, Errors: r.Errors, Slip: r.Slip, Exempt: r.Exempt}
	}
	if f.GeoDNS.GeoIP != "" {
		c.GeoIP = f.localFile(f.GeoDNS.GeoIP)
		if f.keep != nil {
			c.GeoIPCopy = f.keep.geoipCopy()
		}
	}
	for prefix, l := range f.GeoDNS.Locate {
		c.Locate[prefix] = geodns.Place{Lat: l[0], Lon: l[1]}
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.has(roleEdge) {
			c.Nodes = append(c.Nodes, geodns.Node{Name: n.Name, Region: n.Region, Weight: n.weight(), Out: n.out(), Addresses: n.Addresses, Probe: f.probeURL(n),
				ALPN: f.alpn(n), Place: geodns.Place{Lat: n.Location[0], Lon: n.Location[1]}})
		}
	}
	read := map[string]bool{} // the others can't be answered
	for _, z := range zones {
		read[z.Name()] = true
	}
	for _, z := range f.GeoDNS.Zones {
		if !read[zoneKey(z.Name)] {
			continue
		}
		for _, e := range z.Edges {
			name := z.Name
			if e.Name != "@" {
				name = e.Name + "." + z.Name
			}
			c.Edges = append(c.Edges, geodns.EdgeName{Name: name, Nodes: e.Nodes, Answers: e.Answers, TTL: time.Duration(e.TTL)})
		}
	}
	return c
}

// probeURL is where the health of a node's edge is asked: on the address that its listener has, or
// else the node's first.
func (f *Fleet) probeURL(n *Node) string {
	return "http://" + reachable(f.edgeOf(n).HTTP, n) + first(f.GeoDNS.Health.Path, "/.kaiku/health")
}

// openLog opens the log of queries or requests, to be written on at its end. The process has it
// until its own end.
func (f *Fleet) openLog(what string, l *LogFile) (io.Writer, error) {
	if l.File == "-" {
		return os.Stdout, nil
	}
	path := f.path(l.File)
	err := os.MkdirAll(filepath.Dir(path), 0o750)
	if err != nil {
		return nil, fmt.Errorf("open the %s: %w", what, err)
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open the %s: %w", what, err)
	}
	return file, nil
}
