//go:build real

package main

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// watchedOutput keeps a command's output. It calls a function once some texts were printed,
// in order.
type watchedOutput struct {
	mu    sync.Mutex
	b     bytes.Buffer
	from  int // where the search for the next text starts
	texts []string
	call  func()
}

// Write appends to the output.
func (w *watchedOutput) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.b.Write(p)
	for len(w.texts) > 0 {
		at := strings.Index(w.b.String()[w.from:], w.texts[0])
		if at < 0 {
			break
		}
		w.from += at
		if w.texts = w.texts[1:]; len(w.texts) == 0 {
			w.call()
		}
	}
	return n, err
}

// rotateWorld is a fleet of three machines with secrets to replace.
type rotateWorld struct {
	*world
	key, token string // the operator's files
}

// rotate runs a command, and interrupts it as Ctrl-C does, once it has printed the texts of stopAt.
func (w *rotateWorld) rotate(t *testing.T, stopAt []string, args ...string) (out string, code int) {
	t.Helper()
	cmd := w.command(append(args, "--config", w.config, "--health-every", "200ms")...)
	printed := &watchedOutput{texts: stopAt, call: func() { _ = cmd.Process.Signal(syscall.SIGINT) }}
	cmd.Stdout, cmd.Stderr = printed, printed
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	t.Logf("kaiku %q\n%s", args, printed.b.String())
	return printed.b.String(), cmd.ProcessState.ExitCode()
}

// wantSecret checks that all nodes have a secret and are ready.
func (w *rotateWorld) wantSecret(t *testing.T, file, want string) {
	t.Helper()
	for _, n := range w.nodes {
		if got := w.ssh(t, n, "cat /etc/kaiku/"+file); got != want {
			t.Errorf("%s of %s is %q, want %q", file, n, got, want)
		}
	}
	w.wantReady(t)
}

func (w *rotateWorld) wantReady(t *testing.T) {
	t.Helper()
	if out := w.kaiku(t, "status", "--config", w.config); !strings.Contains(out, "3 of 3 nodes ready") {
		t.Errorf("status:\n%s", out)
	}
}

// The secrets of three machines are replaced while clients on three continents send requests, and
// find the edges by GeoDNS. No request is lost.
func TestLongRotate(t *testing.T) {
	if !inWorld() {
		runInWorld(t)
		return
	}
	w := &rotateWorld{world: newWorld(t)}
	w.writeFleet(t)
	dir := filepath.Dir(w.config)
	w.key, w.token = filepath.Join(dir, "fleet.key"), filepath.Join(dir, "admin.token")
	if _, code := w.rotate(t, nil, "deploy", "--accept-new-host-keys"); code != 0 {
		t.FailNow()
	}
	traffic := startTraffic(t, []string{"10.77.0.11:53", "10.77.0.12:53"}, w.files)
	testwait.Until(t, "all nodes are asked", func() bool { return len(traffic.served()) == 3 })
	t.Run("another key is refused", w.anotherKey)
	t.Run("a token that was replaced by hand", w.tokenByHand)
	t.Run("the token", w.rotateToken)
	t.Run("the key, stopped in the middle", w.rotateKeyStopped)
	traffic.stop()
	traffic.lostNone(t)
	t.Logf("%v", traffic)
}

// anotherKey deploys a key that would separate the nodes. The deploy refuses it before
// anything changes.
func (w *rotateWorld) anotherKey(t *testing.T) {
	before := readFile(t, w.key)
	writeFiles(t, "", map[string]string{w.key: strings.Repeat("another", 8) + "\n"})
	out, code := w.rotate(t, nil, "deploy")
	if code != 1 || strings.Count(out, "replace it with kaiku rotate fleet-key") != 3 ||
		strings.Contains(out, "ready") {
		t.Errorf("exit code %d", code)
	}
	writeFiles(t, "", map[string]string{w.key: before})
	w.wantSecret(t, "fleet.key", before)
}

func (w *rotateWorld) tokenByHand(t *testing.T) {
	writeFiles(t, "", map[string]string{w.token: "by-hand\n"})
	if out, code := w.rotate(t, nil, "deploy"); code != 0 || strings.Count(out, "reloaded and well") != 3 ||
		strings.Contains(out, "drain") {
		t.Errorf("exit code %d", code)
	}
	w.wantSecret(t, "admin.token", "by-hand\n")
}

func (w *rotateWorld) rotateToken(t *testing.T) {
	before := readFile(t, w.token)
	if _, code := w.rotate(t, nil, "rotate", "admin-token"); code != 0 || readFile(t, w.token) == before {
		t.Errorf("exit code %d", code)
	}
	w.wantSecret(t, "admin.token", readFile(t, w.token))
	out := w.ssh(t, "n1", "kaiku status --token-file /dev/stdin 2>&1 <<'end' || :\n"+before+"end\n")
	if !strings.Contains(out, "401") && !strings.Contains(out, "refuses the token in") {
		t.Errorf("the old token is accepted: %s", out)
	}
}

// rotateKeyStopped interrupts a rotation between two nodes, and continues it.
func (w *rotateWorld) rotateKeyStopped(t *testing.T) {
	before := strings.TrimSpace(readFile(t, w.key))
	out, code := w.rotate(t, []string{"step 2 of 3: nodes will use", "n1: restarted"}, "rotate", "fleet-key")
	if code != 1 || !strings.Contains(out, "to continue, run kaiku rotate fleet-key --config "+w.config) {
		t.Errorf("exit code %d", code)
	}
	lines := strings.Split(readFile(t, w.key), "\n")
	if len(lines) != 4 || lines[1] != before || !strings.HasPrefix(lines[2], "# kaiku rotate: step 2 of 3") {
		t.Fatalf("the file has %q", lines)
	}
	n1, n3 := w.ssh(t, "n1", "cat /etc/kaiku/fleet.key"), w.ssh(t, "n3", "cat /etc/kaiku/fleet.key")
	if !strings.HasPrefix(n1, lines[0]) || !strings.HasPrefix(n3, before) {
		t.Errorf("it was not stopped between the nodes: %q, %q", n1, n3)
	}
	w.wantReady(t)
	out, code = w.rotate(t, nil, "rotate", "fleet-key")
	if code != 0 || strings.Contains(out, "step 1 of 3") || readFile(t, w.key) != lines[0]+"\n" {
		t.Errorf("exit code %d", code)
	}
	w.wantSecret(t, "fleet.key", lines[0]+"\n")
}
