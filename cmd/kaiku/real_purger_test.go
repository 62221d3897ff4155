//go:build real

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/purge"
)

// purger changes a file at the origin again and again, purges it, and waits for all edges. An edge
// that has applied a purge must not serve an older version.
type purger struct {
	d    *day
	stop func()

	mu      sync.Mutex
	seq     uint64
	done    int
	refused []string
	broken  []string
	told    int // how many of broken have failed the test already
}

func startPurger(t *testing.T, d *day) *purger {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	p := &purger{d: d, stop: func() { cancel(); <-ended }}
	go func() {
		defer close(ended)
		for version := 1; ctx.Err() == nil; version++ {
			p.once(ctx, version)
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(p.stop)
	return p
}

// once makes a version, purges the old one, and checks the edges.
func (p *purger) once(ctx context.Context, version int) {
	file := filepath.Join(p.d.files, "version.txt")
	if err := os.WriteFile(file+".new", fmt.Appendln(nil, version), 0o644); err != nil {
		p.broke("write %s: %v", file, err)
		return
	}
	if err := os.Rename(file+".new", file); err != nil {
		p.broke("%v", err)
		return
	}
	cmd := exec.CommandContext(ctx, p.d.bin, "purge", "http://www.example.com/version.txt", "--wait", "--limit", "5s",
		"--json", "--config", p.d.config)
	cmd.Env = append(os.Environ(), "HOME="+p.d.home, "SSH_AUTH_SOCK=")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var answer purge.Response
	if json.Unmarshal([]byte(out.String()), &answer) != nil || answer.Sequence == 0 {
		if ctx.Err() == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.refused = append(p.refused, fmt.Sprintf("version %d: %v: %s", version, err, errs.String()))
		}
		return
	}
	p.mu.Lock()
	if answer.Sequence <= p.seq {
		p.broken = append(p.broken, fmt.Sprintf("sequence %d after %d", answer.Sequence, p.seq))
	}
	p.seq = answer.Sequence
	p.done++
	p.mu.Unlock()
	for _, e := range answer.Edges {
		if e.Applied {
			p.look(e.Node, version)
		}
	}
}

// look requests the file from an edge. An edge that can't be reached serves nothing too old.
func (p *purger) look(node string, version int) {
	status, cache, body, err := p.d.get(node, "/version.txt")
	if err != nil || status != http.StatusOK {
		return
	}
	if v, err := strconv.Atoi(strings.TrimSpace(body)); err != nil || v < version {
		p.broke("%s gives version %q after the purge for version %d, %s", node, body, version, cache)
	}
}

func (p *purger) broke(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = append(p.broken, fmt.Sprintf(format, args...))
}

// sequence returns the sequence of the last purge.
func (p *purger) sequence() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seq
}

// brokeNone fails the test for violations since its last call.
func (p *purger) brokeNone(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.broken[p.told:]; len(n) > 0 {
		t.Errorf("%d promises of purges were broken, such as %q", len(n), n[:min(len(n), 5)])
	}
	p.told = len(p.broken)
}

// String returns the figures.
func (p *purger) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%d purges, the last with sequence %d; %d were refused, such as %q", p.done, p.seq,
		len(p.refused), p.refused[:min(len(p.refused), 3)])
}
