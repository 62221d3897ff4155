package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Phase is the step of a rollout in which a node is changed: the first of those that its roles
// belong to.
type Phase int

// The phases in order.
const (
	Control Phase = iota
	NameServer
	Edge
)

// Node is the desired state of a machine.
type Node struct {
	Name   string
	SSH    string // [user@]host[:port]
	Phase  Phase
	Edge   bool   // drained before a restart
	Region string // of an edge; "" means a region of its own
	Files  []File
	Service
}

// DialFunc connects to addr from a node.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// RunningFleet queries and controls the running fleet through the listeners of its nodes.
type RunningFleet interface {
	// Healthy returns nil if a node works in all its roles.
	Healthy(ctx context.Context, node string, dial DialFunc) error
	// Spare returns nil if the control plane keeps its quorum without a node. dial connects from
	// that node. Spare returns ErrNoControl if the node is not part of the control plane yet.
	Spare(ctx context.Context, node string, dial DialFunc) error
	// Sites sends a request for each site to a node's edge, as a client would, and checks whether
	// its origin responds. It leaves out sites that the node does not have.
	Sites(ctx context.Context, node string, dial DialFunc) []SiteAnswer
	// Members returns the members of the control plane as one of them reports them. dial connects
	// from that node. Members returns ErrNoControl if the node is not a member.
	Members(ctx context.Context, node string, dial DialFunc) (Members, error)
	// Remove removes node from the control plane through another member. dial connects from that
	// member. Remove returns when the remaining members have the whole log.
	Remove(ctx context.Context, member string, dial DialFunc, node string) error
	// Drain drains or undrains a node. changed is false if the node was in that state already.
	// Drain returns ErrNoDrain if the fleet has no control plane.
	Drain(ctx context.Context, node string, dial DialFunc, drain bool) (changed bool, err error)
}

// ErrNoDrain means that the fleet has no control plane, so name servers can't be told to drain a
// node.
var ErrNoDrain = errors.New("the fleet has no control plane, so a drain can't reach the name servers")

// ErrRefused means that a node refused a request for a reason that does not pass by waiting.
// Nothing was changed.
var ErrRefused = errors.New("refused")

// ErrNoControl means that a node is not a control node yet.
var ErrNoControl = errors.New("no control server answers there")

// Deploy brings nodes to their desired state. Its fields must not change after the first call of a
// method.
type Deploy struct {
	Nodes []Node   // all nodes of the fleet
	Only  []string // names of the nodes to deploy to; nil means all
	// Binaries are the programs to install, one for each kind of machine in the fleet.
	Binaries []*Binary
	Dialer   *Dialer
	Fleet    RunningFleet
	// Batch is how many percent of all edges may be out of service at the same time, but at least
	// one edge. 0 means 25.
	Batch int
	// Settle is how long resolvers may send clients to an edge after it was drained.
	Settle time.Duration
	// Limit is how long a node may take to become healthy; 0 means 2 min. Every is the interval of
	// the health checks; 0 means 1 s.
	Limit, Every time.Duration
	// Out receives a line for each step; nil disables that. Tell is the interval of messages about
	// a step that takes long; 0 means 5 s.
	Out  io.Writer
	Tell time.Duration

	mu    sync.Mutex
	conns map[string]*Conn
}

// check returns an error if the fields contradict each other.
func (d *Deploy) check() error {
	if len(d.Binaries) == 0 {
		return errors.New("a deploy needs a binary")
	}
	for _, name := range d.Only {
		if !slices.ContainsFunc(d.Nodes, func(n Node) bool { return n.Name == name }) {
			return fmt.Errorf("there is no node %s", name)
		}
	}
	for _, n := range d.selected() {
		if n.SSH == "" {
			return fmt.Errorf("node %s has no SSH address: set ssh: in the fleet file, such as root@203.0.113.10",
				n.Name)
		}
	}
	return nil
}

// selected returns the nodes to deploy to.
func (d *Deploy) selected() []*Node {
	var out []*Node
	for i := range d.Nodes {
		if d.Only == nil || slices.Contains(d.Only, d.Nodes[i].Name) {
			out = append(out, &d.Nodes[i])
		}
	}
	return out
}

// conn returns the connection to a node.
func (d *Deploy) conn(ctx context.Context, n *Node) (*Conn, error) {
	d.mu.Lock()
	c := d.conns[n.Name]
	d.mu.Unlock()
	if c != nil {
		return c, nil
	}
	c = &Conn{dialer: d.Dialer, target: n.SSH, node: n.Name,
		onRetry: func(text string) { d.logf("%s: %s", n.Name, text) }}
	if err := c.retry(ctx, func() error { _, err := c.client(ctx); return err }); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conns == nil {
		d.conns = map[string]*Conn{}
	}
	d.conns[n.Name] = c
	return c, nil
}

// Close closes all connections.
func (d *Deploy) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	for _, c := range d.conns {
		err = errors.Join(err, c.Close())
	}
	d.conns = nil
	return err
}

// logf writes a line to Out.
func (d *Deploy) logf(format string, a ...any) {
	if d.Out == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.Out, format+"\n", a...)
}

// maxParallel is the maximum number of nodes that are handled at the same time.
const maxParallel = 16

// forEach calls do for all elements of list, up to maxParallel at a time.
func forEach[T any](list []T, do func(i int, v T)) {
	var all sync.WaitGroup
	room := make(chan struct{}, maxParallel)
	for i, v := range list {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			do(i, v)
		})
	}
	all.Wait()
}

// prepare uploads the binary and the files to all nodes and stages them. If it fails for one node,
// no node is changed.
func (d *Deploy) prepare(ctx context.Context, plans []*NodePlan) error {
	errs := make([]error, len(plans))
	forEach(plans, func(i int, p *NodePlan) {
		if err := d.prepareNode(ctx, p); err != nil {
			errs[i] = fmt.Errorf("node %s: %w", p.Node, err)
			return
		}
		d.logf("%s: ready", p.Node)
	})
	err := errors.Join(errs...)
	if err != nil {
		d.clearStaged(ctx, plans)
	}
	return err
}

func (d *Deploy) prepareNode(ctx context.Context, p *NodePlan) error {
	c, err := d.conn(ctx, p.node)
	if err != nil {
		return err
	}
	w := d.startProgress(p.Node, "laying files aside")
	defer w.stop()
	if p.Upload > 0 {
		if err := p.binary.upload(ctx, c, w); err != nil {
			return fmt.Errorf("upload the binary: %w", err)
		}
		w.update("laying files aside")
	}
	files, err := packFiles(p.files, p.removed, p.node.Writable)
	if err != nil {
		return err
	}
	if _, err := c.Run(ctx, script("stage"), nil, files); err != nil {
		return fmt.Errorf("stage the files: %w", err)
	}
	return nil
}

// clearStaged deletes the staged files on nodes that won't be activated. A node that can't be
// reached keeps them until the next deploy; only root can read them.
func (d *Deploy) clearStaged(ctx context.Context, plans []*NodePlan) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	forEach(plans, func(_ int, p *NodePlan) {
		if c, err := d.conn(ctx, p.node); err == nil {
			_, _ = c.Run(ctx, script("clear"), nil, nil)
		}
	})
}

// activate puts the staged files of a node in place and restarts or reloads the process.
func (d *Deploy) activate(ctx context.Context, c *Conn, p *NodePlan) error {
	process, sockets := "none", ""
	switch p.Process {
	case "start", "restart":
		process = "restart"
	case "reload":
		process = "reload"
	}
	if p.sockets {
		sockets = "sockets"
	}
	defer d.startProgress(p.Node, "%s: the old process finishes its requests, and the new one says when it is ready",
		gerund(p.Process)).stop()
	_, err := c.Run(ctx, script("activate"), []string{p.Version, process, sockets}, nil)
	return err
}

// gerund returns the word for an action on the process that is under way, such as "restarting".
func gerund(process string) string {
	return cmp.Or(process, "chang") + "ing"
}

// waitHealthy waits until a node runs version with the fleet file that has the checksum sum, and is
// healthy in two checks in a row. A process that keeps crashing may pass a single check. After a
// timeout, the error has the last reason that is not itself a timeout.
func (d *Deploy) waitHealthy(ctx context.Context, c *Conn, node, version, sum string) error {
	limit := cmp.Or(d.Limit, 2*time.Minute)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w := d.startProgress(node, "asking for its health")
	defer w.stop()
	well, refusals := 0, 0
	var reason error
	for {
		err := d.checkHealth(ctx, c, node, version, sum)
		if err != nil && (reason == nil || !isTimeout(err)) {
			reason = err
			w.update("waiting for it to be well: %v", err)
		}
		if !errors.Is(err, ErrRefused) {
			refusals = 0
		} else if refusals++; refusals == 3 { // the first may come from before the reload
			return err
		}
		if err == nil && ctx.Err() == nil {
			if well++; well == 2 {
				return nil
			}
		} else {
			well = 0
		}
		select {
		case <-ctx.Done():
			if reason == nil {
				reason = ctx.Err()
			}
			return fmt.Errorf("not healthy within %v: %w", limit, reason)
		case <-time.After(cmp.Or(d.Every, time.Second)):
		}
	}
}

// isTimeout reports whether err only means that ctx ended.
func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

func (d *Deploy) checkHealth(ctx context.Context, c *Conn, node, version, sum string) error {
	out, err := c.Run(ctx, script("status"), nil, nil)
	if err != nil {
		return err
	}
	running, status, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if running != version {
		return fmt.Errorf("it runs %.40q, not %s", running, version)
	}
	if err := checkStatus(status, sum); err != nil {
		return err
	}
	return d.Fleet.Healthy(ctx, node, c.DialContext)
}
