package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
)

// adminNode is an admin listener.
type adminNode struct {
	name      string // "" without a fleet file
	url       string // without a path
	token     string
	tokenFile string // the file of the token, which may not exist
	ssh       string // [user@]host[:port] of the machine; "" means a direct connection
	conn      *deploy.Conn
	err       error // why it can't be queried
}

// adminNodes are the admin listeners that a command may query.
type adminNodes struct {
	list   []*adminNode
	dialer *deploy.Dialer // nil if all connections are direct
	asking atomic.Bool    // a question to the operator is open
	say    func(format string, a ...any)
	opened []*adminNode   // connected over SSH
	fleet  *config.Fleet  // nil without a fleet file
	losers sync.WaitGroup // close connections that are no longer needed
}

// open finds the admin listeners: --admin, those of the nodes of --config, that of the node that
// this machine is, or the default.
func (a *adminAPI) open(cmd *cobra.Command) (*adminNodes, error) {
	nodes := &adminNodes{say: func(string, ...any) {}}
	if a.verbose {
		nodes.say = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
	}
	own := filepath.Join(a.etc, "fleet.yaml")
	here := a.url == "" && (a.config == own || a.config == "" && exists(own))
	fleetFile := a.config
	if here {
		fleetFile = own
	}
	if fleetFile == "" {
		if a.node != "" && a.url == "" {
			return nil, usageError{errors.New("--node needs a fleet file: give --config fleet.yaml")}
		}
		n, err := a.direct(cmp.Or(a.url, defaultAdmin), "")
		nodes.list = []*adminNode{n}
		return nodes, err
	}
	f, err := config.Read(fleetFile)
	if err != nil {
		return nil, needsRoot(err)
	}
	tokenFile := ""
	if f.Secrets.AdminToken != "" {
		tokenFile = f.LocalFile(f.Secrets.AdminToken)
	}
	if a.url != "" {
		n, err := a.direct(a.url, tokenFile)
		nodes.list = []*adminNode{n}
		return nodes, err
	}
	nodes.fleet = f
	if here {
		switch n, err := thisNode(f, a.etc); {
		case err == nil:
			nodes.list, err = a.ofFleet(f, []string{n.Name}, tokenFile, false)
			if a.node != "" && a.node != n.Name {
				return nil, usageError{fmt.Errorf("--node %s: this machine is %s, and can't connect to other nodes: run the command there, or on the machine that you deploy from, with --config", a.node, n.Name)}
			}
			return nodes, err
		case a.config == "":
			return nil, err
		} // with --config, this machine is one to deploy from
	}
	names := f.NodeNames()
	if a.node != "" {
		if _, err := f.WantNode("--node", a.node); err != nil {
			return nil, err
		}
		names = []string{a.node}
	}
	if nodes.list, err = a.ofFleet(f, names, tokenFile, true); err != nil {
		return nil, err
	}
	nodes.dialer = newDialer(cmd)
	nodes.dialer.Timeout = sshTime
	if ask := nodes.dialer.Ask; ask != nil {
		nodes.dialer.Ask = func(question string, hidden bool) (string, error) {
			nodes.asking.Store(true)
			defer nodes.asking.Store(false)
			return ask(question, hidden)
		}
	}
	return nodes, nil
}

// direct returns an admin listener that is known by its URL, and perhaps the file of its token.
func (a *adminAPI) direct(raw, tokenFile string) (*adminNode, error) {
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.HasPrefix(u.Host, ":") {
		return nil, usageError{fmt.Errorf("--admin %s: want http://HOST:PORT", a.url)}
	}
	n := &adminNode{url: strings.TrimSuffix(raw, "/")}
	return n, a.setToken(n, tokenFile)
}

// ofFleet returns the admin listeners of the nodes in the fleet file.
func (a *adminAPI) ofFleet(f *config.Fleet, names []string, tokenFile string, overSSH bool) ([]*adminNode, error) {
	var out []*adminNode
	var with []string
	for i := range f.Nodes {
		n := &f.Nodes[i]
		addr := adminOf(f, n)
		if addr == "" || a.edges && !n.Has(config.RoleEdge) {
			continue
		}
		with = append(with, n.Name)
		if !slices.Contains(names, n.Name) {
			continue
		}
		node := &adminNode{name: n.Name, url: "http://" + onNode(addr)}
		if overSSH {
			node.ssh = sshOf(n)
		}
		if err := a.setToken(node, tokenFile); err != nil {
			return nil, err
		}
		out = append(out, node)
	}
	switch {
	case len(out) > 0:
		return out, nil
	case a.edges:
		return nil, usageError{fmt.Errorf("%s is not an edge: give one of %s", strings.Join(names, ", "),
			strings.Join(with, ", "))}
	}
	return nil, usageError{fmt.Errorf("%s has no admin listener: set `admin` of the node in the fleet file, or give one of %s", strings.Join(names, ", "), strings.Join(with, ", "))}
}

// adminOf returns the address of a node's admin listener, or "" if it has none.
func adminOf(f *config.Fleet, n *config.Node) string {
	if n.Has(config.RoleEdge) {
		return f.EdgeOf(n).Admin
	}
	return n.Admin
}

// setToken reads the token of a node from --token-file, or else from the file that the fleet file
// names. The latter may be missing.
func (a *adminAPI) setToken(n *adminNode, tokenFile string) error {
	if n.tokenFile = cmp.Or(a.tokenFile, tokenFile); n.tokenFile == "" {
		return nil
	}
	var err error
	n.token, err = config.ReadToken(n.tokenFile)
	if a.tokenFile == "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return needsRoot(err)
}

// needsRoot returns a hint for an error that means that a file may not be read.
func needsRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run this as root, with sudo", err)
	}
	return err
}

// fleetHere returns the fleet file of a command without --config: that in the working folder, or
// that of this machine's node.
func fleetHere(etc string) string {
	const here = "fleet.yaml"
	if own := filepath.Join(etc, here); !exists(here) && exists(own) {
		return own
	}
	return here
}

// thisNode returns the node that runs on this machine: the node that the environment or the file
// "node" next to the fleet file names, the only node, or the node with an address of this machine.
func thisNode(f *config.Fleet, etc string) (*config.Node, error) {
	file := filepath.Join(etc, "node")
	name := os.Getenv(nodeVariable)
	if text, err := os.ReadFile(file); name == "" && err == nil {
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), nodeVariable+"="); ok {
				name = strings.Trim(value, `"'`)
			}
		}
	}
	if name != "" {
		return f.WantNode(nodeVariable, name)
	}
	if len(f.Nodes) == 1 {
		return &f.Nodes[0], nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("find out which node this machine is: %w", err)
	}
	var found []*config.Node
	for i := range f.Nodes {
		if slices.ContainsFunc(f.Nodes[i].Addresses, func(a netip.Addr) bool {
			return slices.ContainsFunc(addrs, func(has net.Addr) bool {
				p, err := netip.ParsePrefix(has.String())
				return err == nil && p.Addr().Unmap() == a.Unmap()
			})
		}) {
			found = append(found, &f.Nodes[i])
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("can't tell which node of %s this machine is: write %s=NAME into %s; the nodes are %s", f.Name(),
			nodeVariable, file, strings.Join(f.NodeNames(), ", "))
	}
	return found[0], nil
}

const (
	// sshTime is how long a connection over SSH may take.
	sshTime = 10 * time.Second
	// nextAfter is how long connect waits for a node before it tries the next one too.
	nextAfter = time.Second
)

// connect returns the first node that it can connect to, or nil. It tries the nodes that have not
// failed in their order: each a second after the previous one, or as soon as that one fails.
func (a *adminNodes) connect(ctx context.Context) *adminNode {
	var left []*adminNode
	for _, n := range a.list {
		if n.err == nil {
			left = append(left, n)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		node *adminNode
		err  error
	}
	results := make(chan result, len(left))
	tick := time.NewTicker(nextAfter)
	defer tick.Stop()
	started, ended := 0, 0
	start := func() {
		if started < len(left) {
			n := left[started]
			started++
			go func() { results <- result{n, a.reach(ctx, n)} }()
		}
	}
	for start(); ended < len(left); {
		select {
		case r := <-results:
			ended++
			if r.err != nil {
				a.failed(r.node, r.err)
				start()
				continue
			}
			if r.node.ssh != "" {
				a.opened = append(a.opened, r.node)
			}
			a.answered(r.node)
			late := started - ended
			a.losers.Go(func() { // they end with ctx
				for range late {
					if r := <-results; r.err == nil {
						r.node.close()
					}
				}
			})
			return r.node
		case <-tick.C:
			if !a.asking.Load() {
				start()
			}
		}
	}
	return nil
}

// each connects to all nodes that have not failed, at the same time, and calls the function for
// each node that it can connect to.
func (a *adminNodes) each(ctx context.Context, do func(i int, n *adminNode) error) {
	var work sync.WaitGroup
	var mu sync.Mutex // guards what answered and failed record
	for i, n := range a.list {
		if n.err != nil {
			continue
		}
		work.Go(func() {
			had := n.conn != nil
			err := a.reach(ctx, n)
			mu.Lock()
			if n.conn != nil && !had {
				a.opened = append(a.opened, n)
			}
			mu.Unlock()
			if err == nil {
				err = do(i, n)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				a.failed(n, err)
			} else {
				a.answered(n)
			}
		})
	}
	work.Wait()
}

// overSSH reports whether the nodes of a fleet are queried over SSH.
func (a *adminNodes) overSSH() bool { return a.dialer != nil }

// reach connects to a node's machine, and checks whether its admin listener accepts a connection.
// For a direct connection, the call itself shows that.
func (a *adminNodes) reach(ctx context.Context, n *adminNode) error {
	if n.ssh == "" || n.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*sshTime)
	defer cancel()
	conn, err := a.dialer.Dial(ctx, n.name, n.ssh)
	if err != nil {
		return err
	}
	c, err := conn.DialContext(ctx, "tcp", n.host())
	if err != nil {
		return errors.Join(n.unreached(err), conn.Close())
	}
	n.conn = conn
	return c.Close()
}

// answered records that a node answers.
func (a *adminNodes) answered(n *adminNode) {
	switch {
	case n.ssh != "":
		a.say("%s answers, through %s", n.name, n.ssh)
	default:
		a.say("%s answers", cmp.Or(n.name, n.url))
	}
}

// failed records that a node can't be queried.
func (a *adminNodes) failed(n *adminNode, err error) {
	n.err = err
	a.say("%s can't be queried: %v", cmp.Or(n.name, n.url), err)
}

// err returns why no node could be queried.
func (a *adminNodes) err(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(a.list) == 1 {
		return a.list[0].wrap(a.list[0].err)
	}
	text := "no node can be queried:"
	for _, n := range a.list {
		text += fmt.Sprintf("\n  %s: %v", n.name, n.err)
	}
	return errors.New(text)
}

// close closes the connections. If a connection that is no longer needed has asked the operator a
// question, close does not wait for the answer.
func (a *adminNodes) close() {
	if !a.asking.Load() {
		a.losers.Wait()
	}
	for _, n := range a.opened {
		n.close()
	}
}

func (n *adminNode) close() {
	if n.conn != nil {
		n.conn.Close()
		n.conn = nil
	}
}
