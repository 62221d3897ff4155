package node

import (
	"fmt"
	"log/slog"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// addControl makes the control node.
func (b *builder) addControl() error {
	c, err := newControl(b.fleet, b.node, b.key, b.log)
	if err != nil {
		return err
	}
	if b.plane != nil {
		b.plane.control = c
	}
	c.Digest = &digest{}
	b.parts = append(b.parts, c)
	return nil
}

// newControl returns the control node.
func newControl(f *config.Fleet, n *config.Node, key *fleet.Key, log *slog.Logger) (*fleet.Control, error) {
	if key == nil {
		return nil, fmt.Errorf("node %s can't be a control node without the fleet key: create the file that secrets.fleet_key names, for example with `openssl rand -base64 32`", n.Name)
	}
	conf, err := key.TLS(n.Name, n.Roles...)
	if err != nil {
		return nil, err
	}
	c := f.ControlOf(n)
	out := &fleet.Control{Node: n.Name, Addr: c.Listen, Cluster: c.Cluster, Dir: f.Path(c.Data), TLS: conf, Log: log}
	clients, cluster := f.ControlAddresses()
	for name, addr := range cluster {
		if name != n.Name {
			out.Peers, out.Others = append(out.Peers, addr), append(out.Others, clients[name])
		}
		if name < n.Name {
			out.Turn++
		}
	}
	return out, nil
}
