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

// Process is what a process runs of a node, and how it takes a changed fleet file.
type Process struct {
	config string
	name   string
	log    *slog.Logger
	fixed  map[string]string // see Fleet.fixed
	taken  string            // sum of the fleet file that it runs
	parts  []Part
	Edge   *Edge          // nil if not run
	dns    *geodns.Server // nil if not run
	admin  *adminRole     // nil if the process has no admin listener
	sites  siteMaker      // of the edge
	keep   *config.Keeper
	files  []string // that the fleet file names; they are watched like itself
}

// Overrides are flags that come before the fleet file.
type Overrides struct {
	Edge   config.Edge
	Listen []string // of geodns
}

// makeSites makes the edge's sites of a fleet file.
func (p *Process) makeSites(f *config.Fleet) (siteSet, error) {
	m := p.sites
	m.fleet = f
	if m.node = f.Node(m.node.Name); m.node == nil {
		return siteSet{}, fmt.Errorf("node %s is not in the file any more", p.sites.node.Name)
	}
	if p.Edge != nil {
		m.before = p.Edge.sites
	}
	return m.make()
}

// Close gives back what New opened.
func (p *Process) Close() error {
	if p.Edge == nil {
		return nil
	}
	p.Edge.setSites(siteSet{})
	return p.Edge.Store.Close()
}

// Run runs the parts and takes changes of the fleet file until ctx ends.
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

// Status is what the process tells systemd: with files that it can't use, it did not take all.
func (p *Process) Status() string {
	if err := p.keep.Err(); err != nil {
		return deploy.NotTaken(p.taken, p.taken, err)
	}
	return deploy.Taken(p.taken)
}
