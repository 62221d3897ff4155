package deploy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Registry is the control plane's record of the node to remove.
type Registry interface {
	// Look returns the state of the node. If watch is true, Look waits until it is certain whether
	// the node is live.
	Look(ctx context.Context, watch bool) (Registered, error)
	// Drain drains or undrains the node.
	Drain(ctx context.Context, drain bool) error
	// Forget deletes the record of the node.
	Forget(ctx context.Context) error
}

// Registered is the state of a node in the registry.
type Registered struct {
	Known bool // the registry has a record of the node
	Live  bool // the node has sent a heartbeat while Look watched
	Edge  bool
	Drain bool // the node is already drained
}

// Remover removes a node from the fleet.
type Remover struct {
	*Deploy           // uses only Dialer, Settle, Limit and Out
	Target   Node     // uses only Name and SSH
	Lost     bool     // the machine can't be reached
	Registry Registry // nil if the fleet has no control plane
	// Notice is how long name servers may take to notice that the node is down; 0 if they don't
	// check it.
	Notice time.Duration
}

// Removal is the plan of a removal.
type Removal struct {
	Node     string
	SSH      string // "" if the machine is lost
	Drain    bool
	Stop     bool
	Files    []string // installed by deploys
	Secrets  []string // the secrets among Files
	Programs []string // folders of installed versions
	Written  []string // folders that the process wrote to
	Kept     []string // files in /etc/kaiku that deploys did not install
	Forget   bool

	was Registered
}

// Nothing reports whether there is nothing to remove.
func (r *Removal) Nothing() bool {
	return !r.Stop && !r.Forget && len(r.Files)+len(r.Programs)+len(r.Written) == 0
}

// WriteTo writes the plan as text for the operator.
func (r *Removal) WriteTo(out io.Writer) (int64, error) {
	var b strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&b, "  "+format+"\n", a...) }
	fmt.Fprintf(&b, "%s:\n", r.Node)
	if r.SSH == "" {
		line("leave the machine as it is, because it is lost")
	}
	if r.Drain {
		line("drain it, and wait until cached DNS answers have expired")
	}
	if r.Stop {
		line("stop kaiku.service, which finishes its requests")
	}
	for _, path := range r.Files {
		secret := ""
		if slices.Contains(r.Secrets, path) {
			secret = " (a secret)"
		}
		line("remove %s%s", path, secret)
	}
	for _, path := range slices.Concat(r.Programs, r.Written) {
		line("remove %s", path)
	}
	for _, path := range r.Kept {
		line("keep %s, which no deploy installed", path)
	}
	if r.Forget {
		line("delete it from the registry")
	}
	if r.Nothing() {
		line("nothing to do")
	}
	n, err := io.WriteString(out, b.String())
	return int64(n), err
}

// Plan returns what has to be removed.
func (m *Remover) Plan(ctx context.Context) (*Removal, error) {
	r := &Removal{Node: m.Target.Name}
	if m.Registry != nil {
		w := m.startProgress(r.Node, "asking the control plane for it")
		was, err := m.Registry.Look(ctx, m.Lost)
		w.stop()
		if err != nil {
			return nil, fmt.Errorf("look up node %s in the control plane: %w", r.Node, err)
		}
		r.was, r.Forget = was, was.Known
	}
	if m.Lost {
		if r.was.Live {
			return nil, fmt.Errorf("node %s is not lost: it still reports to the control plane; remove it without --lost, or turn its machine off", r.Node)
		}
		return r, nil
	}
	r.SSH = m.Target.SSH
	w := m.startProgress(r.Node, "connecting to %s", r.SSH)
	defer w.stop()
	c, err := m.conn(ctx, &m.Target)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", r.Node, err)
	}
	w.update("reading what is on it")
	out, err := c.Run(ctx, script("about"), nil, nil)
	if err != nil {
		return nil, fmt.Errorf("node %s: read its state: %w", r.Node, err)
	}
	name, err := r.parse(out)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", r.Node, err)
	}
	if name != "" && name != r.Node {
		return nil, fmt.Errorf("the machine %s is node %s, not %s", r.SSH, name, r.Node)
	}
	r.Drain = r.Stop && r.was.Edge
	return r, nil
}

// parse parses the output of about.sh.
func (r *Removal) parse(out []byte) (name string, err error) {
	ended := false
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if ended {
			return "", errors.New("unexpected output of the node after its last line")
		}
		key, value, _ := strings.Cut(lines.Text(), " ")
		switch key {
		case "name":
			name = value
			continue
		case "active":
			r.Stop = value != "inactive" && value != "" && value != "unknown"
			continue
		case "end":
			ended = true
			continue
		}
		secret := false
		if key == "file" {
			var mode string
			mode, value, _ = strings.Cut(value, " ")
			secret = mode == "600"
		}
		if err := CheckPath(strings.TrimSuffix(value, "/")); err != nil {
			return "", fmt.Errorf("unexpected output of the node: %.100q: %w", lines.Text(), err)
		}
		switch key {
		case "file":
			r.Files = append(r.Files, value)
			if secret {
				r.Secrets = append(r.Secrets, value)
			}
		case "program":
			r.Programs = append(r.Programs, value)
		case "folder":
			if !slices.Contains(r.Written, value) {
				r.Written = append(r.Written, value)
			}
		case "kept":
			r.Kept = append(r.Kept, value)
		default:
			return "", fmt.Errorf("unexpected output of the node: %.100q", lines.Text())
		}
	}
	if !ended {
		return "", errors.New("the output of the node is incomplete")
	}
	return name, nil
}

// Apply carries out the plan. If ctx ends before the node is stopped, Apply undrains the node.
// After that point, Apply finishes the removal.
func (m *Remover) Apply(ctx context.Context, r *Removal) error {
	if r.Drain && !r.was.Drain {
		if err := m.drainTarget(ctx); err != nil {
			return err
		}
	}
	if r.SSH != "" {
		if err := m.wipe(context.WithoutCancel(ctx), r); err != nil {
			return err
		}
	}
	if !r.Forget {
		return nil
	}
	if r.Drain && m.Notice > 0 { // otherwise they might send clients to the node again
		m.logf("%s: waiting %v until name servers see that it is down", r.Node, m.Notice)
		w := m.startProgress(r.Node, "waiting for name servers, %v in all", m.Notice)
		time.Sleep(m.Notice)
		w.stop()
	}
	return m.forget(context.WithoutCancel(ctx), r)
}

// drainTarget drains the node.
func (m *Remover) drainTarget(ctx context.Context) error {
	name := m.Target.Name
	if err := m.Registry.Drain(ctx, true); err != nil {
		return fmt.Errorf("drain %s: %w", name, err)
	}
	m.logf("%s: drained", name)
	err := m.settle(ctx, name)
	if err == nil {
		return nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if undone := m.Registry.Drain(undo, false); undone != nil {
		return errors.Join(err, fmt.Errorf("undrain %s: %w; it gets no clients until you run kaiku undrain %s", name, undone,
			name))
	}
	m.logf("%s: undrained; nothing was removed", name)
	return err
}

// wipe stops the node and deletes its files.
func (m *Remover) wipe(ctx context.Context, r *Removal) error {
	c, err := m.conn(ctx, &m.Target)
	if err != nil {
		return fmt.Errorf("node %s: %w", r.Node, err)
	}
	m.logf("%s: stopping and removing", r.Node)
	w := m.startProgress(r.Node, "stopping and removing: it finishes its requests, and its cache is deleted")
	defer w.stop()
	if _, err := c.Run(ctx, script("remove"), r.Written, nil); err != nil {
		return fmt.Errorf("node %s: delete its files: %w; run this again", r.Node, err)
	}
	m.logf("%s: removed", r.Node)
	return nil
}

// forget removes the node from the registry and checks that it does not come back.
func (m *Remover) forget(ctx context.Context, r *Removal) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(m.Limit, 2*time.Minute))
	defer cancel()
	w := m.startProgress(r.Node, "taking it out of the registry")
	defer w.stop()
	for {
		err := m.Registry.Forget(ctx)
		if err == nil {
			m.logf("%s: deleted from the control plane", r.Node)
			return nil
		}
		w.update("taking it out of the registry: %v", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("delete node %s from the control plane: %w; run this again with --lost", r.Node, err)
		case <-time.After(cmp.Or(m.Every, time.Second)):
		}
	}
}
