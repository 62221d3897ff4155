//go:build real

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// watchedOutput is what a command prints, with a call when some texts are in it, one behind the
// other.
type watchedOutput struct {
	mu    sync.Mutex
	b     bytes.Buffer
	from  int // what is before was looked at
	texts []string
	call  func()
}

// Write writes.
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

// The secrets of three machines are replaced while clients of three continents go on asking by
// GeoDNS: what would part the nodes is refused before anything changes, and a rotation that is
// stopped in the middle goes on. No request is lost.
func TestLongRotate(t *testing.T) {
	if !inWorld() {
		runInWorld(t)
		return
	}
	w := newWorld(t)
	w.writeFleet(t)
	key, token := filepath.Join(filepath.Dir(w.config), "fleet.key"), filepath.Join(filepath.Dir(w.config),
		"admin.token")
	read := func(file string) string { return readFile(t, file) }
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// kaiku runs a command, and stops it as Ctrl-C does once it has printed some texts.
	kaiku := func(stopAt []string, args ...string) (string, int) {
		t.Helper()
		cmd := w.command(append(args, "--config", w.config, "--health-every", "200ms")...)
		out := &watchedOutput{texts: stopAt, call: func() { _ = cmd.Process.Signal(syscall.SIGINT) }}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		t.Logf("kaiku %q\n%s", args, out.b.String())
		return out.b.String(), cmd.ProcessState.ExitCode()
	}
	have := func(file, want string) {
		t.Helper()
		for _, n := range w.nodes {
			if got := w.ssh(t, n, "cat /etc/kaiku/"+file); got != want {
				t.Errorf("%s of %s is %q, want %q", file, n, got, want)
			}
		}
		if out := w.kaiku(t, "status", "--config", w.config); !strings.Contains(out, "3 of 3 nodes ready") {
			t.Errorf("status:\n%s", out)
		}
	}
	if _, code := kaiku(nil, "deploy", "--accept-new-host-keys"); code != 0 {
		t.FailNow()
	}
	traffic := startTraffic(t, []string{"10.77.0.11:53", "10.77.0.12:53"}, w.files)
	until(t, "all nodes are asked", func() bool { return len(traffic.served()) == 3 })

	t.Run("another key is refused", func(t *testing.T) {
		before := read(key)
		write(key, strings.Repeat("another", 8)+"\n")
		out, code := kaiku(nil, "deploy")
		if code != 1 || strings.Count(out, "replace it with kaiku rotate fleet-key") != 3 ||
			strings.Contains(out, "ready") {
			t.Errorf("exit code %d", code)
		}
		write(key, before)
		have("fleet.key", before)
	})
	t.Run("a token that was replaced by hand", func(t *testing.T) {
		write(token, "by-hand\n")
		if out, code := kaiku(nil, "deploy"); code != 0 || strings.Count(out, "reloaded and well") != 3 ||
			strings.Contains(out, "drain") {
			t.Errorf("exit code %d", code)
		}
		have("admin.token", "by-hand\n")
	})
	t.Run("the token", func(t *testing.T) {
		before := read(token)
		if _, code := kaiku(nil, "rotate", "admin-token"); code != 0 || read(token) == before {
			t.Errorf("exit code %d", code)
		}
		have("admin.token", read(token))
		if out := w.ssh(t, "n1", "kaiku status --token-file /dev/stdin 2>&1 <<'end' || :\n"+before+
			"end\n"); !strings.Contains(out, "401") && !strings.Contains(out, "does not take the token") {
			t.Errorf("the old token is accepted: %s", out)
		}
	})
	t.Run("the key, stopped in the middle", func(t *testing.T) {
		before := strings.TrimSpace(read(key))
		out, code := kaiku([]string{"step 2 of 3: nodes use", "n1: restarted"}, "rotate", "fleet-key")
		if code != 1 || !strings.Contains(out, "run kaiku rotate fleet-key --config "+w.config+" again to go on") {
			t.Errorf("exit code %d", code)
		}
		lines := strings.Split(read(key), "\n")
		if len(lines) != 4 || lines[1] != before || !strings.HasPrefix(lines[2], "# kaiku rotate: step 2 of 3") {
			t.Fatalf("the file has %q", lines)
		}
		if n1, n3 := w.ssh(t, "n1", "cat /etc/kaiku/fleet.key"), w.ssh(t, "n3",
			"cat /etc/kaiku/fleet.key"); !strings.HasPrefix(n1, lines[0]) || !strings.HasPrefix(n3, before) {
			t.Errorf("it was not stopped between the nodes: %q, %q", n1, n3)
		}
		if out := w.kaiku(t, "status", "--config", w.config); !strings.Contains(out, "3 of 3 nodes ready") {
			t.Errorf("status:\n%s", out)
		}
		out, code = kaiku(nil, "rotate", "fleet-key")
		if code != 0 || strings.Contains(out, "step 1 of 3") || read(key) != lines[0]+"\n" {
			t.Errorf("exit code %d", code)
		}
		have("fleet.key", lines[0]+"\n")
	})
	traffic.stop()
	traffic.lostNone(t)
	t.Logf("%v", traffic)
}
