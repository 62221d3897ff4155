package deploy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/kaiku-cdn/kaiku/deploy/sshtest"
)

// testNode is a machine: a folder in place of /, an SSH server in this process, and stand-ins in
// testdata/bin for programs that need root or systemd.
type testNode struct {
	name, root, addr string
	bin              string       // folder of the stand-ins
	fileSizeLimit    atomic.Int64 // maximum file size in blocks of 512 bytes; 0 means no limit
	ssh              *sshtest.Server

	serial   atomic.Bool // a connection is served only after the previous one and its commands have ended
	serialMu sync.Mutex  // for serial

	mu       sync.Mutex
	commands []string
	conns    int

	received atomic.Int64
	cutAfter atomic.Int64 // closes a connection after this many bytes; 0 means never
}

func newTestNode(t *testing.T, name string, operator ssh.PublicKey) *testNode {
	t.Helper()
	bin, err := filepath.Abs("testdata/bin")
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{name: name, root: t.TempDir(), bin: bin}
	for _, dir := range []string{"run/systemd/system", "run/lock", "etc"} {
		if err := os.MkdirAll(filepath.Join(n.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if pid := n.pid(); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	n.ssh = &sshtest.Server{Operator: operator, Run: n.run, Around: n.around}
	n.ssh.Start(t)
	n.addr = n.ssh.Addr()
	return n
}

// countedConn counts the bytes read and closes the connection at a limit.
type countedConn struct {
	net.Conn
	n *testNode
}

// Read implements io.Reader.
func (c countedConn) Read(p []byte) (int, error) {
	got, err := c.Conn.Read(p)
	if total, at := c.n.received.Add(int64(got)), c.n.cutAfter.Load(); at > 0 && total >= at {
		c.n.cutAfter.Store(0)
		c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return got, err
}

// around serves a connection, counted, and alone if the node wants that.
func (n *testNode) around(raw net.Conn, serve func(net.Conn)) {
	if n.serial.Load() {
		n.serialMu.Lock()
		defer n.serialMu.Unlock()
	}
	n.mu.Lock()
	n.conns++
	n.mu.Unlock()
	serve(countedConn{raw, n})
}

// run runs a command with a real sh, and returns its exit status.
func (n *testNode) run(command string, ch ssh.Channel) int {
	n.mu.Lock()
	n.commands = append(n.commands, command)
	n.mu.Unlock()
	if limit := n.fileSizeLimit.Load(); limit > 0 {
		command = fmt.Sprintf("ulimit -f %d; trap '' XFSZ; %s", limit, command)
	}
	cmd := exec.Command("sh", "-c", command)
	cmd.Env = append(os.Environ(), "KAIKU_ROOT="+n.root, "PATH="+n.bin+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
	in, err := cmd.StdinPipe()
	if err != nil {
		return 126
	}
	if err := cmd.Start(); err != nil {
		return 126
	}
	go func() { // not waited for, because the command may not read everything
		_, _ = io.Copy(in, ch)
		in.Close()
	}()
	if err := cmd.Wait(); err != nil {
		return cmd.ProcessState.ExitCode()
	}
	return 0
}

// connections returns how many connections were made.
func (n *testNode) connections() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conns
}

// pid returns the process ID that the stand-in for systemd runs, or 0.
func (n *testNode) pid() int {
	pid, _ := strconv.Atoi(strings.TrimSpace(n.read("/run/pid")))
	return pid
}

// read returns the contents of a file of the node, or "" if it does not exist.
func (n *testNode) read(path string) string {
	b, _ := os.ReadFile(n.root + path)
	return string(b)
}

func (n *testNode) write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(n.root+path), 0o755),
		os.WriteFile(n.root+path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// running returns the version that runs.
func (n *testNode) running() string {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", n.pid()))
	return filepath.Base(filepath.Dir(exe))
}

// allCommands returns all commands that were run.
func (n *testNode) allCommands() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.commands, "\n")
}

// tree returns all files below a folder with their contents.
func (n *testNode) tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.Walk(n.root+dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || strings.HasSuffix(path, "/.lock") {
			return err
		}
		to, _ := os.Readlink(path)
		b, _ := os.ReadFile(path)
		fmt.Fprintf(&out, "%s %v %s %q\n", strings.TrimPrefix(path, n.root), info.Mode(), to, shorten(b))
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return out.String()
}

func shorten(b []byte) []byte { return b[:min(len(b), 4<<10)] }
