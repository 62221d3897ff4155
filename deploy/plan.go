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

// Plan is the list of changes that a deploy would make.
type Plan struct {
	Nodes []*NodePlan `json:"nodes"`
	// Control is the planned change of the control plane; nil if its current state is unknown.
	Control *ControlPlan `json:"control,omitempty"`
}

// NodePlan is the list of changes at one node.
type NodePlan struct {
	Node    string   `json:"node"`
	Version string   `json:"version"`           // desired version of the binary
	From    string   `json:"from,omitempty"`    // current version
	Upload  int64    `json:"upload,omitempty"`  // maximum number of bytes to upload
	Files   []Change `json:"files,omitempty"`   // files to write or remove
	Process string   `json:"process,omitempty"` // start, restart or reload; "" means no action
	Why     []string `json:"why,omitempty"`     // reasons besides the binary and the files

	node    *Node
	state   *state
	binary  *Binary
	files   []*File // to write
	removed []string
	sockets bool                  // the listeners of kaiku.socket change
	sites   map[string]SiteAnswer // state of the sites before the change, by name; nil if unknown
}

// Change is the change of a file.
type Change struct {
	Path   string `json:"path"`
	What   string `json:"what"`           // install, change or remove
	Secret bool   `json:"secret"`         // a secret has no Diff
	Diff   string `json:"diff,omitempty"` // unified diff; only for text
}

// fleetSum returns the checksum of the new fleet file, or "" if the node gets none.
func (p *NodePlan) fleetSum() string {
	for i := range p.node.Files {
		if f := &p.node.Files[i]; f.Path == fleetFile {
			return FleetSum(f.Data)
		}
	}
	return ""
}

// Nothing reports whether the node has its desired state.
func (p *NodePlan) Nothing() bool { return p.Process == "" && len(p.Files) == 0 && p.Upload == 0 }

// Nothing reports whether all nodes have their desired state.
func (p *Plan) Nothing() bool {
	if p.Control != nil && len(p.Control.Removes) > 0 {
		return false
	}
	return !slices.ContainsFunc(p.Nodes, func(n *NodePlan) bool { return !n.Nothing() })
}

// planNode reads the state of a node and returns the changes to make.
func (d *Deploy) planNode(ctx context.Context, n *Node) (*NodePlan, error) {
	w := d.startProgress(n.Name, "connecting to %s", n.SSH)
	defer w.stop()
	c, err := d.conn(ctx, n)
	if err != nil {
		return nil, err
	}
	w.update("reading what is on it")
	files, err := n.allFiles()
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
	if err := errors.Join(st.checkUsable(need), st.checkPorts(n)); err != nil {
		return nil, err
	}
	p.process(effect)
	return p, nil
}

// binaryFor returns the binary for the node's kind of machine.
func (d *Deploy) binaryFor(st *state) (*Binary, error) {
	var machines []string
	for _, b := range d.Binaries {
		if b.Machine == "" || b.Machine == st.machine {
			return b, nil
		}
		machines = append(machines, b.Machine)
	}
	return nil, fmt.Errorf("its processor is %s, but the binary is for %s: give a binary for %[1]s too, by another --binary, or by a folder with both", st.machine, strings.Join(machines, " and "))
}

// process sets the action on the process for the largest effect of the changed files.
func (p *NodePlan) process(effect Effect) {
	st := p.state
	switch {
	case !st.active:
		p.Process = "start"
	case p.Version != st.running || p.Version != st.current || effect == Restart:
		p.Process = "restart"
	case st.unfinished:
		p.Process, p.Why = "restart", append(p.Why, "an earlier deploy was interrupted")
	case !st.enabled:
		p.Process, p.Why = "restart", append(p.Why, "it is not enabled, so it would not start at boot")
	case effect == Reload:
		p.Process = "reload"
	}
}

// WriteTo writes the plan as text for the operator.
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

// Plan reads the state of all selected nodes and returns the changes to make. If it fails for any
// node, it returns no plan and an error that lists each of them.
func (d *Deploy) Plan(ctx context.Context) (*Plan, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	p := &Plan{}
	nodes := d.selected()
	plans, errs := make([]*NodePlan, len(nodes)), make([]error, len(nodes))
	forEach(nodes, func(i int, n *Node) {
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
