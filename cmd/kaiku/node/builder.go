package node

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// builder makes the parts of a node, one for each of its roles.
type builder struct {
	*Process
	fleet *config.Fleet
	node  *config.Node
	zones []*geodns.Zone
	over  Overrides
	key   *fleet.Key    // nil if the fleet has none
	plane *controlPlane // nil without a control plane
	reg   *prometheus.Registry

	adminServer *admin.Server // of a node that is no edge; nil if there is none
}

// New makes the parts of a node for some of its roles; nil means all. Nothing listens yet. After an
// error, nothing stays open.
func New(fleetFile, name string, roles []string, over Overrides, log *slog.Logger) (*Process, error) {
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
	b := &builder{fleet: f, node: n, zones: zones, over: over, reg: newRegistry()}
	if b.key, err = keyIfNeeded(f, n, log); err != nil {
		return nil, err
	}
	if b.plane, err = newControlPlane(f, n, b.key, log); err != nil {
		return nil, err
	}
	if b.plane != nil {
		b.reg.MustRegister(fleetCollector{b.plane})
	}
	if roles == nil {
		roles = n.Roles
	}
	b.Process = &Process{config: fleetFile, name: name, log: log, keep: keep, files: f.Watched(),
		fixed: fixedBy(f, name), taken: f.Sum()}
	for _, role := range roles {
		if !n.Has(role) {
			return nil, fmt.Errorf("node %s does not have the role %s", name, role)
		}
	}
	if err := b.build(roles); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b.Process, nil
}

func (b *builder) build(roles []string) error {
	add := map[string]func() error{config.RoleEdge: b.addEdge, config.RoleGeoDNS: b.addGeoDNS,
		config.RoleControl: b.addControl}
	for _, role := range roles {
		if err := add[role](); err != nil {
			return err
		}
	}
	if b.Edge == nil && b.node.Admin != "" {
		if err := b.addAdmin(); err != nil {
			return err
		}
	}
	if b.Edge == nil && b.dns == nil && b.node.Admin == "" {
		return nil // a control node that is nothing else has no connection to the control plane
	}
	b.addReporter()
	if b.plane != nil {
		b.parts = append(b.parts, b.plane)
	}
	return nil
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// applyLog applies the fleet file's log settings to the log of the process. It leaves other logs as
// they are.
func applyLog(log *slog.Logger, to config.LogSettings) {
	if h, ok := log.Handler().(interface{ Configure(config.LogSettings) }); ok {
		h.Configure(to)
	}
}
