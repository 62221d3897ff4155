package deploy

import (
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

// Phase is when a node's turn is: that of its role that comes first.
type Phase int

// In this order.
const (
	Control Phase = iota
	NameServer
	Edge
)

// Node is a machine as it shall be.
type Node struct {
	Name   string
	SSH    string // [user@]host[:port]
	Phase  Phase
	Edge   bool   // it is drained before it is restarted
	Region string // of an edge; "" is one of its own
	Files  []File
	Service
}

// DialFunc connects from a node to an address that it can reach.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Fleet is the running fleet as a node's own listeners tell of it.
type Fleet interface {
	// Healthy returns nil if a node does all that its roles ask of it.
	Healthy(ctx context.Context, node string, dial DialFunc) error
	// Spare returns nil if the control plane goes on without a node: dial is of that node.
	// ErrNoControl says that it does not run a part of it yet.
	Spare(ctx context.Context, node string, dial DialFunc) error
	// Sites asks a node's edge for each site, as a client does, and for each whether its origin
	// answers. Sites that the node does not have are left out.
	Sites(ctx context.Context, node string, dial DialFunc) []SiteAnswer
	// Members are the nodes that form the control plane, as one of them tells: dial is of that
	// node. ErrNoControl says that it runs no part of it.
	Members(ctx context.Context, node string, dial DialFunc) (Members, error)
	// Remove takes a node out of the control plane, as a member is asked to: dial is of that
	// member. It returns when those that stay have all of the log.
	Remove(ctx context.Context, member string, dial DialFunc, node string) error
	// Drain marks a node to get no new clients, or takes that back; changed is false if it was so
	// before. ErrNoDrain says that there is nothing to tell others by.
	Drain(ctx context.Context, node string, dial DialFunc, drain bool) (changed bool, err error)
}

// ErrNoDrain says that a fleet has no control plane, so that name servers can't be told of a drain.
var ErrNoDrain = errors.New("no control plane to tell name servers of a drain")

// ErrRefused says that a node refused what it was asked, for a reason that does not go away by
// waiting: nothing was changed.
var ErrRefused = errors.New("refused")

// ErrNoControl says that a node is no control node yet.
var ErrNoControl = errors.New("no control server answers there")

// Deploy brings nodes to what they shall be. Fields are not changed after the first call.
type Deploy struct {
	Nodes []Node   // the whole fleet
	Only  []string // names of those to deploy to; nil means all
	// Binaries are the program, for each kind of machine that there is among the nodes.
	Binaries []*Binary
	Dialer   *Dialer
	Fleet    Fleet
	// Batch is how many percent of all edges may be out of service at a time, at least one of them;
	// 0 means 25.
	Batch int
	// Settle is how long resolvers may go on sending clients to an edge after it is drained.
	Settle time.Duration
	// Limit is how long a node has to become healthy; 0 means 2 minutes. Every is the pause between
	// looks; 0 means 1 s.
	Limit, Every time.Duration
	// Out gets a line for each thing that was done; nil means nobody. Tell is how often a long step
	// says there what it waits for; 0 means 5 s.
	Out  io.Writer
	Tell time.Duration

	mu    sync.Mutex
	conns map[string]*Conn
}

// check finds what makes no sense.
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
			return fmt.Errorf("node %s has no ssh: give the address of its SSH server, such as root@203.0.113.10", n.Name)
		}
	}
	return nil
}

// selected are the nodes to deploy to.
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
	c = &Conn{dialer: d.Dialer, target: n.SSH, node: n.Name, note: func(text string) { d.say("%s: %s", n.Name, text) }}
	if err := c.again(ctx, func() error { _, err := c.client(ctx); return err }); err != nil {
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

// Close ends the connections.
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

// say tells of what was done.
func (d *Deploy) say(format string, a ...any) {
	if d.Out == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.Out, format+"\n", a...)
}

// atOnce bounds what is done at several nodes at the same time.
const atOnce = 16

// each does something for all of a list, several at a time.
func each[T any](list []T, do func(i int, v T)) {
	var all sync.WaitGroup
	room := make(chan struct{}, atOnce)
	for i, v := range list {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			do(i, v)
		})
	}
	all.Wait()
}

// prepare brings everything to the nodes, aside. If that fails at one, nothing is changed at any.
func (d *Deploy) prepare(ctx context.Context, plans []*NodePlan) error {
	errs := make([]error, len(plans))
	each(plans, func(i int, p *NodePlan) {
		if err := d.prepareNode(ctx, p); err != nil {
			errs[i] = fmt.Errorf("node %s: %w", p.Node, err)
			return
		}
		d.say("%s: ready", p.Node)
	})
	err := errors.Join(errs...)
	if err != nil {
		d.clear(ctx, plans)
	}
	return err
}

func (d *Deploy) prepareNode(ctx context.Context, p *NodePlan) error {
	c, err := d.conn(ctx, p.node)
	if err != nil {
		return err
	}
	w := d.waits(p.Node, "laying files aside")
	defer w.end()
	if p.Upload > 0 {
		if err := p.binary.upload(ctx, c, w); err != nil {
			return fmt.Errorf("upload the binary: %w", err)
		}
		w.now("laying files aside")
	}
	files, err := pack(p.files, p.removed, p.node.Writable)
	if err != nil {
		return err
	}
	if _, err := c.Run(ctx, script("stage"), nil, files); err != nil {
		return fmt.Errorf("lay files aside: %w", err)
	}
	return nil
}

// clear forgets what was laid aside at nodes that won't be activated. A node that can't be reached
// keeps it, for root alone, until the next deploy.
func (d *Deploy) clear(ctx context.Context, plans []*NodePlan) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	each(plans, func(_ int, p *NodePlan) {
		if c, err := d.conn(ctx, p.node); err == nil {
			_, _ = c.Run(ctx, script("clear"), nil, nil)
		}
	})
}

// activate makes a node take what was laid aside.
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
	defer d.waits(p.Node, "%s: the old process finishes its requests, and the new one says when it is ready", doing(p.Process)).end()
	_, err := c.Run(ctx, script("activate"), []string{p.Version, process, sockets}, nil)
	return err
}

// doing is what is done to a process, as a word for what is under way.
func doing(process string) string {
	return first(process, "chang") + "ing"
}

// healthy waits until a node runs a version with a fleet file, of which sum is that, and is well,
// twice in a row as a process that ends again and again may look well once. If time runs out, the
// error tells the last reason that was another one than that.
func (d *Deploy) healthy(ctx context.Context, c *Conn, node, version, sum string) error {
	limit := first(d.Limit, 2*time.Minute)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w := d.waits(node, "asking for its health")
	defer w.end()
	well, refusals := 0, 0
	var reason error
	for {
		err := d.look(ctx, c, node, version, sum)
		if err != nil && (reason == nil || !isTimeout(err)) {
			reason = err
			w.now("waiting for it to be well: %v", err)
		}
		if !errors.Is(err, ErrRefused) {
			refusals = 0
		} else if refusals++; refusals == 3 { // the first may be from before a reload
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
		case <-time.After(first(d.Every, time.Second)):
		}
	}
}

// isTimeout reports whether an error is only that time ran out.
func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

func (d *Deploy) look(ctx context.Context, c *Conn, node, version, sum string) error {
	out, err := c.Run(ctx, script("status"), nil, nil)
	if err != nil {
		return err
	}
	running, status, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if running != version {
		return fmt.Errorf("it runs %.40q, not %s", running, version)
	}
	if err := runs(status, sum); err != nil {
		return err
	}
	return d.Fleet.Healthy(ctx, node, c.DialContext)
}
