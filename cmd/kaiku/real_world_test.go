//go:build real

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world/machine"
)

// world is a network with three machines and an origin. This process is the operator and the
// clients. A world has its own namespaces for the network, mounts and processes, so the machine of
// the test keeps its files and network. When the process that made the world ends, the kernel kills
// everything in it.
type world struct {
	dir, home, config string
	bin               string            // of the operator
	files             string            // of the origin
	systemd           string            // the stand-in for systemd
	nodes             []string          // names
	power             map[string]func() // by name: functions that switch a machine off

	mu    sync.Mutex
	addrs map[string]string // by name
}

// addr returns the address of a node. It is safe to call while machines come and go.
func (w *world) addr(node string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.addrs[node]
}

const worldVariable = "KAIKU_TEST_WORLD"

func inWorld() bool { return os.Getenv(worldVariable) != "" }

// runInWorld runs the calling test again, in a process with namespaces of its own.
func runInWorld(t *testing.T) {
	t.Helper()
	for program, from := range map[string]string{"sshd": "openssh-server", "ssh": "openssh-client",
		"ssh-keygen": "openssh-client", "ip": "iproute2", "nsenter": "util-linux",
		"setpriv": "util-linux", "useradd": "passwd", "nginx": "nginx-light"} {
		if _, err := exec.LookPath(program); err != nil {
			if _, err := os.Stat("/usr/sbin/" + program); err != nil {
				t.Fatalf("%s is not installed: apt-get install --no-install-recommends %s", program, from)
			}
		}
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v"}
	if end, ok := t.Deadline(); ok {
		args = append(args, fmt.Sprintf("-test.timeout=%v", time.Until(end)-5*time.Second))
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), worldVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	runtime.LockOSThread() // Pdeathsig applies when this thread ends
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s in a world of its own, which takes root: %v", t.Name(), err)
	}
}

// newWorld makes the network, the origin and the machines.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := newNetwork(t)
	w.files, _ = nginxOrigin(t, "10.77.0.1:8000")
	for i := range 3 {
		w.addNode(t, fmt.Sprintf("n%d", i+1), fmt.Sprintf("10.77.0.1%d", i+1))
	}
	return w
}

// newNetwork makes a network without machines, and the operator's key and program.
func newNetwork(t *testing.T) *world {
	t.Helper()
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil { // shows the processes of this world
		t.Fatal(err)
	}
	w := &world{dir: t.TempDir(), addrs: map[string]string{}, power: map[string]func(){}}
	w.home = filepath.Join(w.dir, "home")
	if err := os.MkdirAll(w.home+"/.ssh", 0o700); err != nil {
		t.Fatal(err)
	}
	w.run(t, "ip", "link", "set", "lo", "up")
	w.run(t, "ip", "link", "add", "br0", "type", "bridge")
	w.run(t, "ip", "address", "add", "10.77.0.1/24", "dev", "br0")
	w.run(t, "ip", "link", "set", "br0", "up")
	w.bin = w.build(t, ".", "").Path
	w.systemd = filepath.Join(w.dir, "systemd")
	w.run(t, "env", "CGO_ENABLED=0", "go", "build", "-o", w.systemd, "./testdata/systemd")
	w.run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", w.home+"/.ssh/id_ed25519")
	return w
}

// addNode starts a machine. First it switches off a machine with the same name.
func (w *world) addNode(t *testing.T, name, addr string) {
	t.Helper()
	if off := w.power[name]; off != nil {
		off()
		w.nodes = slices.DeleteFunc(w.nodes, func(n string) bool { return n == name })
	}
	dir := filepath.Join(w.dir, name+"-"+addr)
	if err := machine.Prepare(dir, w.home+"/.ssh/id_ed25519.pub"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(w.systemd, machine.Args(dir)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	power, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	off := sync.OnceFunc(func() {
		power.Close()
		_ = cmd.Wait()
	})
	t.Cleanup(off)
	w.power[name] = off
	pid := fmt.Sprint(cmd.Process.Pid)
	link := "v" + strings.ReplaceAll(addr, ".", "")
	w.run(t, "ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pid)
	w.run(t, "ip", "link", "set", link, "master", "br0", "up")
	w.run(t, "nsenter", "-n", "-t", pid, "ip", "address", "add", addr+"/32", "dev", "eth0")
	w.run(t, "nsenter", "-n", "-t", pid, "ip", "link", "set", "eth0", "up")
	// all are on one link, whatever their addresses
	w.run(t, "nsenter", "-n", "-t", pid, "ip", "route", "add", "default", "dev", "eth0")
	w.run(t, "ip", "route", "replace", addr+"/32", "dev", "br0")
	w.nodes = append(w.nodes, name)
	w.mu.Lock()
	w.addrs[name] = addr
	w.mu.Unlock()
	waitFor(t, addr+":22")
}

// writeFleet writes the fleet file and the files that it names.
func (w *world) writeFleet(t *testing.T) {
	t.Helper()
	dir := filepath.Join(w.dir, "fleet")
	w.config = filepath.Join(dir, "fleet.yaml")
	for name, text := range map[string]string{
		"fleet.yaml": `
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://10.77.0.1:8000"] } }]
edge: { http: ":80", disk: 128MiB, memory: 16MiB, access_log: { file: /var/log/kaiku/access.json } }
secrets: { fleet_key: fleet.key, admin_token: admin.token }
geodns:
  query_log: { file: /var/log/kaiku/dns/queries.json, sample: 1 }
  zones: [{ name: example.com, file: example.com.zone, edges: { www: { ttl: 1s } } }]
nodes:
  n1: { roles: [edge, geodns, control], region: eu, location: [60.17, 24.94], addresses: [10.77.0.11] }
  n2: { roles: [edge, geodns, control], region: us, location: [40.71, -74.01], addresses: [10.77.0.12] }
  n3: { roles: [edge, control], region: asia, location: [1.35, 103.82], addresses: [10.77.0.13] }
`,
		"example.com.zone": "@ 60 IN SOA ns1 hostmaster 1 7200 1800 1209600 60\n@ 60 IN NS ns1\n@ 60 IN NS ns2\nns1 60 IN A 10.77.0.11\nns2 60 IN A 10.77.0.12\n",
		"fleet.key":        strings.Repeat("secret", 8),
		"admin.token":      strings.Repeat("token", 8) + "\n",
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs a program, which must succeed.
func (w *world) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// command returns a kaiku command with the operator's keys.
func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(w.bin, args...)
	cmd.Env = append(os.Environ(), "HOME="+w.home, "SSH_AUTH_SOCK=")
	return cmd
}

// kaiku runs a kaiku command, which must succeed, and returns its output.
func (w *world) kaiku(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.command(args...).Output()
	if err != nil {
		t.Fatalf("kaiku %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// ssh runs a script on a node with OpenSSH's client. It uses the host key that kaiku has recorded.
func (w *world) ssh(t *testing.T, node, script string) string {
	t.Helper()
	return w.run(t, "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o",
		"UserKnownHostsFile="+w.home+"/.ssh/known_hosts",
		"-i", w.home+"/.ssh/id_ed25519", "root@"+w.addrs[node], script)
}
