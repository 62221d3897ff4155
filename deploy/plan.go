package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// Plan is what a deploy would do.
type Plan struct {
	Nodes []*NodePlan `json:"nodes"`
	// Control is what becomes of the control plane; nil if nobody knows what it is now.
	Control *ControlPlan `json:"control,omitempty"`
}

// NodePlan is what a deploy would do at one node.
type NodePlan struct {
	Node    string   `json:"node"`
	Version string   `json:"version"`           // of the binary, that it is to have
	From    string   `json:"from,omitempty"`    // that it has
	Upload  int64    `json:"upload,omitempty"`  // bytes of the binary that have to be sent at most
	Files   []Change `json:"files,omitempty"`   // that are to be written or removed
	Process string   `json:"process,omitempty"` // start, restart or reload; "" leaves it alone
	Why     []string `json:"why,omitempty"`     // reasons beside the binary and the files

	node    *Node
	state   *state
	binary  *Binary
	files   []*File // to be written
	removed []string
	sockets bool                  // its listeners change
	sites   map[string]SiteAnswer // before its turn, by name; nil if they were not asked for
}

// Change is what happens to a file.
type Change struct {
	Path   string `json:"path"`
	What   string `json:"what"`           // install, change, remove
	Secret bool   `json:"secret"`         // and so it has no diff
	Diff   string `json:"diff,omitempty"` // unified; of text that is no secret
}

// fleetSum is that of the fleet file that the node is to run; "" if it gets none.
func (p *NodePlan) fleetSum() string {
	for i := range p.node.Files {
		if f := &p.node.Files[i]; f.Path == fleetFile {
			return FleetSum(f.Data)
		}
	}
	return ""
}

// Nothing reports whether the node is as it should be.
func (p *NodePlan) Nothing() bool { return p.Process == "" && len(p.Files) == 0 && p.Upload == 0 }

// Nothing reports whether all nodes are as they should be.
func (p *Plan) Nothing() bool {
	if p.Control != nil && len(p.Control.Removes) > 0 {
		return false
	}
	return !slices.ContainsFunc(p.Nodes, func(n *NodePlan) bool { return !n.Nothing() })
}

// planNode reads a node and says what is to be done there.
func (d *Deploy) planNode(ctx context.Context, n *Node) (*NodePlan, error) {
	w := d.waits(n.Name, "connecting to %s", n.SSH)
	defer w.end()
	c, err := d.conn(ctx, n)
	if err != nil {
		return nil, err
	}
	w.now("reading what is on it")
	files, err := n.all()
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	st, err := readState(ctx, c, d.Binaries, paths)
	if err != nil {
		return nil, err
	}
	binary, err := d.binaryFor(st)
	if err != nil {
		return nil, err
	}
	p := &NodePlan{Node: n.Name, Version: binary.Version(), From: st.current, node: n, state: st, binary: binary}
	if st.binaries[binary.Version()] != binary.SHA256 {
		p.Upload = binary.Size
	}
	need := p.Upload
	effect := None
	for _, f := range files {
		had, ok := st.files[f.Path]
		if ok && had == (fileInfo{f.mode(), f.sum()}) {
			continue
		}
		var before []byte
		change := Change{Path: f.Path, What: "install", Secret: f.Secret}
		if ok {
			change.What = "change"
			if f.isText() || f.Replace != nil {
				if before, err = c.Run(ctx, script("cat"), []string{f.Path}, nil); err != nil {
					return nil, fmt.Errorf("read %s: %w", f.Path, err)
				}
			}
			if f.Replace != nil {
				switch replace, err := f.Replace(before); {
				case err != nil:
					return nil, err
				case !replace:
					continue
				}
			}
			if f.isText() {
				change.Diff = udiff.Unified(n.Name+":"+f.Path, f.Path, string(before), string(f.Data))
			}
		}
		e := Restart
		if f.Effect != nil {
			e = f.Effect(before)
		}
		effect = min(effect, e)
		p.sockets = p.sockets || f.Path == socketUnit
		p.files, p.Files = append(p.files, f), append(p.Files, change)
		need += int64(len(f.Data))
	}
	for _, path := range st.deployed {
		if !slices.Contains(paths, path) {
			if _, there := st.files[path]; there {
				p.removed, p.Files = append(p.removed, path), append(p.Files, Change{Path: path, What: "remove"})
				effect = Restart
				p.sockets = p.sockets || path == socketUnit
			}
		}
	}
	if err := errors.Join(st.usable(need), st.busy(n)); err != nil {
		return nil, err
	}
	p.process(effect)
	return p, nil
}

// binaryFor is the program for a node.
func (d *Deploy) binaryFor(st *state) (*Binary, error) {
	var machines []string
	for _, b := range d.Binaries {
		if b.Machine == "" || b.Machine == st.machine {
			return b, nil
		}
		machines = append(machines, b.Machine)
	}
	return nil, fmt.Errorf("its processor is %s, but the binary is for %s: give a binary for %[1]s with --binary, which you may repeat, or which may name a folder", st.machine, strings.Join(machines, " and "))
}

// process says what the process needs.
func (p *NodePlan) process(effect Effect) {
	st := p.state
	switch {
	case !st.active:
		p.Process = "start"
	case p.Version != st.running || p.Version != st.current || effect == Restart:
		p.Process = "restart"
	case st.unfinished:
		p.Process, p.Why = "restart", append(p.Why, "an earlier deploy did not come to its end")
	case !st.enabled:
		p.Process, p.Why = "restart", append(p.Why, "it would not start with the machine")
	case effect == Reload:
		p.Process = "reload"
	}
}

// WriteTo writes the plan for people.
func (p *Plan) WriteTo(out io.Writer) (int64, error) {
	var b strings.Builder
	for _, n := range p.Nodes {
		n.write(&b)
	}
	if p.Control != nil {
		p.Control.write(&b)
	}
	if p.Nothing() {
		b.WriteString("nothing to do\n")
	}
	w, err := io.WriteString(out, b.String())
	return int64(w), err
}

func (p *NodePlan) write(b *strings.Builder) {
	if p.Nothing() {
		fmt.Fprintf(b, "%s: nothing to do, runs %s\n", p.Node, p.Version)
		return
	}
	fmt.Fprintf(b, "%s:\n", p.Node)
	switch {
	case p.From == "":
		fmt.Fprintf(b, "  install kaiku %s\n", p.Version)
	case p.From != p.Version:
		fmt.Fprintf(b, "  change kaiku from %s to %s\n", p.From, p.Version)
	}
	for _, f := range p.Files {
		secret := ""
		if f.Secret {
			secret = " (a secret)"
		}
		fmt.Fprintf(b, "  %s %s%s\n", f.What, f.Path, secret)
		for line := range strings.Lines(f.Diff) {
			fmt.Fprintf(b, "    %s", line)
		}
	}
	if p.Process != "" {
		fmt.Fprintf(b, "  %s kaiku.service", p.Process)
		if len(p.Why) > 0 {
			fmt.Fprintf(b, ": %s", strings.Join(p.Why, ", "))
		}
		b.WriteString("\n")
	}
}

// Plan reads all nodes that are to be deployed to. The plan is whole, or there is none: the error
// tells of each node that can't be deployed to.
func (d *Deploy) Plan(ctx context.Context) (*Plan, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	p := &Plan{}
	nodes := d.selected()
	plans, errs := make([]*NodePlan, len(nodes)), make([]error, len(nodes))
	each(nodes, func(i int, n *Node) {
		if plans[i], errs[i] = d.planNode(ctx, n); errs[i] != nil {
			errs[i] = fmt.Errorf("node %s: %w", n.Name, errs[i])
		}
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	p.Nodes = plans
	var err error
	if p.Control, err = d.planControl(ctx, plans); err != nil {
		return nil, err
	}
	return p, nil
}
