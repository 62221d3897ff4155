package deploy

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
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
)

// testNode is a machine: a folder in place of /, an SSH server in this process, and stand-ins in
// testdata/bin for programs that need root or systemd.
type testNode struct {
	name, root, addr string
	bin              string        // folder of the stand-ins
	authorizedKey    ssh.PublicKey // the operator's key
	fileSizeLimit    atomic.Int64  // maximum file size in blocks of 512 bytes; 0 means no limit
	shutdown         func()        // stops the SSH server and closes its connections

	serial   atomic.Bool // a connection is served only after the previous one and its commands have ended
	serialMu sync.Mutex  // for serial

	mu       sync.Mutex
	key      ssh.Signer
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
	n := &testNode{name: name, root: t.TempDir(), bin: bin, authorizedKey: operator, key: newKey(t)}
	for _, dir := range []string{"run/systemd/system", "run/lock", "etc"} {
		if err := os.MkdirAll(filepath.Join(n.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	n.shutdown = func() {
		cancel()
		l.Close()
		all.Wait()
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { n.serve(ctx, c) })
		}
	})
	t.Cleanup(func() {
		n.shutdown()
		if pid := n.pid(); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return n
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// writeKey writes a new private key to a file and returns its public key.
func writeKey(t *testing.T, file string) ssh.PublicKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700),
		os.WriteFile(file, pem.EncodeToMemory(block), 0o600)); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
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

func (n *testNode) serve(ctx context.Context, raw net.Conn) {
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	defer raw.Close()
	if n.serial.Load() {
		n.serialMu.Lock()
		defer n.serialMu.Unlock()
	}
	n.mu.Lock()
	n.conns++
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), n.authorizedKey.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	conf.AddHostKey(n.key)
	n.mu.Unlock()
	conn, channels, requests, err := ssh.NewServerConn(countedConn{raw, n}, conf)
	if err != nil {
		return
	}
	defer conn.Close()
	go func() {
		for r := range requests { // keepalives
			_ = r.Reply(false, nil)
		}
	}()
	var all sync.WaitGroup
	defer all.Wait()
	for ch := range channels {
		switch ch.ChannelType() {
		case "session":
			all.Go(func() { n.session(ch) })
		case "direct-tcpip":
			all.Go(func() { forward(ch) })
		default:
			_ = ch.Reject(ssh.UnknownChannelType, "")
		}
	}
}

// session runs the command of a session with a real sh.
func (n *testNode) session(new ssh.NewChannel) {
	ch, requests, err := new.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	for r := range requests {
		if r.Type != "exec" {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		command := string(r.Payload[4:])
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
			return
		}
		if err := cmd.Start(); err != nil {
			return
		}
		go func() { // not waited for, because the command may not read everything
			_, _ = io.Copy(in, ch)
			in.Close()
		}()
		status := 0
		if err := cmd.Wait(); err != nil {
			status = cmd.ProcessState.ExitCode()
		}
		_, _ = ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, uint32(status)))
		return
	}
}

func forward(new ssh.NewChannel) {
	var to struct {
		Host   string
		Port   uint32
		Origin string
		From   uint32
	}
	if err := ssh.Unmarshal(new.ExtraData(), &to); err != nil {
		return
	}
	out, err := net.Dial("tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
	if err != nil {
		_ = new.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer out.Close()
	ch, requests, err := new.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	go func() {
		_, _ = io.Copy(out, ch)
		out.Close()
	}()
	_, _ = io.Copy(ch, out)
	ch.Close()
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
