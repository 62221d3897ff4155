package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kaiku-cdn/kaiku/edge"
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
func newEdge(e config.Edge, name string, reg *prometheus.Registry, log *slog.Logger) (*edgeNode, error) {
	if err := checkFit(&e, machineMemory(), fileSystem(e.Data), log); err != nil {
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

// openLog opens the log of queries or requests, to be written on at its end. The process has it
// until its own end.
func openLog(f *config.Fleet, what string, l *config.LogFile) (io.Writer, error) {
	if l.File == "-" {
		return os.Stdout, nil
	}
	path := f.Path(l.File)
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

// applyLog sets the log of a process as a fleet file says. A log that is not the process's own
// stays as it is.
func applyLog(log *slog.Logger, to config.LogSettings) {
	if h, ok := log.Handler().(interface{ Configure(config.LogSettings) }); ok {
		h.Configure(to)
	}
}
