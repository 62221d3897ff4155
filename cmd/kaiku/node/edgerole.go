package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Edge is an edge with its store.
type Edge struct {
	*edge.Server
	Store *storage.Store
	sites siteSet
}

// newEdge opens the store and makes an edge of it.
func newEdge(e config.Edge, name string, reg *prometheus.Registry, log *slog.Logger) (*Edge, error) {
	if err := checkFit(&e, machineMemory(), fileSystem(e.Data), log); err != nil {
		return nil, err
	}
	store, err := storage.Open(storage.Options{Dir: e.Data, Disk: int64(e.Disk), Memory: int64(e.Memory), Log: log})
	if err != nil {
		return nil, err
	}
	return &Edge{Store: store, Server: &edge.Server{Name: name, Version: Version(), HTTP: e.HTTP, HTTPS: e.HTTPS,
		Admin:          e.Admin,
		MaxConnections: e.MaxConnections, MaxPerClient: e.MaxPerClient, DrainTimeout: time.Duration(e.DrainTimeout),
		Reporter:  &admin.Reporter{},
		NoHitLane: e.HitLane != nil && !*e.HitLane, OwnHTTP2: e.HTTP2 != "go", Peer: e.Peer,
		Store: store, Registry: reg, Log: log}}, nil
}

// setSites replaces the sites that the edge serves. Origin pools that are no longer used close once
// their requests end.
func (n *Edge) setSites(s siteSet) {
	n.Sites.Set(s.sites)
	n.sites.close(s)
	n.sites = s
}

// Listen binds the listeners. If that fails, it closes the store.
func (n *Edge) Listen(ctx context.Context) error {
	if err := n.Server.Listen(ctx); err != nil {
		return errors.Join(err, n.Store.Close())
	}
	return nil
}

// Serve serves until ctx ends, and then closes the store.
func (n *Edge) Serve(ctx context.Context) error {
	paced := make(chan struct{})
	ctx, stop := context.WithCancel(ctx)
	go func() { // ends with ctx
		defer close(paced)
		paceCollector(ctx, n.Store.MemoryUsed)
	}()
	err := n.Server.Serve(ctx)
	stop()
	<-paced
	n.setSites(siteSet{})
	return errors.Join(err, n.Store.Close())
}

// addEdge adds the edge. Flags override the fleet file.
func (b *builder) addEdge() error {
	f := b.fleet
	e, o := f.EdgeOf(b.node), b.over.Edge
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
	if b.Edge, err = newEdge(e, b.name, b.reg, b.log); err != nil {
		sites.close(siteSet{})
		return err
	}
	b.Edge.PeerTLS, b.Edge.PurgeFrom = peers, e.PurgeFrom
	b.Edge.Tokens.Set(tokens)
	b.Edge.Faults = b.keep.Faults
	b.admin = &adminRole{e.Admin, &b.Edge.Tokens, &b.Edge.Sites}
	if b.Edge.Certificates, err = newCertificates(f, e, b.key, b.plane); err != nil {
		return err
	}
	if l := e.AccessLog; l != nil {
		out, err := openLog(f, "access log", l)
		if err != nil {
			return err
		}
		b.Edge.AccessLog = &front.AccessLog{Out: out, Sample: l.Sample}
	}
	if b.key != nil { // for TLS sessions to resume at another edge
		if b.Edge.Secrets, err = b.key.EdgeSecrets(); err != nil {
			return err
		}
	}
	b.Edge.setSites(sites)
	if b.plane != nil {
		b.plane.follow(b.Edge, e)
	}
	b.parts = append(b.parts, b.Edge)
	return nil
}

// openLog opens a log of queries or requests for appending. It stays open until the process ends.
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
