package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// Process runs some or all roles of a node, and reloads the fleet file.
type Process struct {
	config string
	name   string
	log    *slog.Logger
	fixed  map[string]string // as fixedBy returns it
	taken  string            // sum of the fleet file in use
	parts  []Part
	Edge   *Edge          // nil if not run
	dns    *geodns.Server // nil if not run
	admin  *adminRole     // nil if the process has no admin listener
	sites  siteMaker      // settings for the edge's sites
	keep   *config.Keeper
	files  []string // the files that the fleet file names, which are watched too
}

// Overrides are flags that override the fleet file.
type Overrides struct {
	Edge   config.Edge
	Listen []string // addresses of the name server
}

// makeSites makes the edge's sites from a fleet file.
func (p *Process) makeSites(f *config.Fleet) (siteSet, error) {
	m := p.sites
	m.fleet = f
	if m.node = f.Node(m.node.Name); m.node == nil {
		return siteSet{}, fmt.Errorf("the fleet file no longer has the node %s", p.sites.node.Name)
	}
	if p.Edge != nil {
		m.before = p.Edge.sites
	}
	return m.make()
}

// Close releases what New opened.
func (p *Process) Close() error {
	if p.Edge == nil {
		return nil
	}
	p.Edge.setSites(siteSet{})
	return p.Edge.Store.Close()
}

// Run runs the parts, and reloads changes of the fleet file, until ctx ends.
func (p *Process) Run(ctx context.Context) error {
	in, err := takeInherited()
	if err != nil {
		return errors.Join(err, p.Close())
	}
	if p.Edge != nil {
		p.Edge.ListenTCP = in.listen
	}
	if p.dns != nil {
		p.dns.ListenTCP = in.listen
	}
	parts := append([]Part{reloader{p}}, p.parts...)
	return Run(ctx, append(parts, readiness{in, p.Status(), p.log})...)
}

// Status returns the status line for systemd. If there are files that can't be used, it says that
// the fleet file was not taken completely.
func (p *Process) Status() string {
	if err := p.keep.Err(); err != nil {
		return deploy.NotTaken(p.taken, p.taken, err)
	}
	return deploy.Taken(p.taken)
}
