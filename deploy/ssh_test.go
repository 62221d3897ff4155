package deploy

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestHostKeyChangedIsRefused(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	f.deploy(t)
	before := stripRun(n.tree(t, "/"))
	old := ssh.FingerprintSHA256(n.ssh.HostKey())
	n.ssh.NewHostKey(t)
	f.Close()
	setConfig(f, "c: 1\n")
	_, _, err := f.tryDeploy(t.Context()) // AcceptNew is set but does not apply to changed keys
	if !errors.Is(err, ErrHostKeyChanged) {
		t.Fatalf("a changed key: %v", err)
	}
	file := filepath.Join(f.home, ".ssh/known_hosts")
	for _, want := range []string{old, ssh.FingerprintSHA256(n.ssh.HostKey()), file + ":1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %s: %v", want, err)
		}
	}
	if stripRun(n.tree(t, "/")) != before {
		t.Error("something was changed")
	}
}

// Even if known_hosts keeps nothing, a machine must present the same key throughout a deploy.
func TestHostKeyChangedMeanwhile(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	if err := os.WriteFile(filepath.Join(f.home, ".ssh/config"), []byte("Host *\n  UserKnownHostsFile /dev/null\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	f.deploy(t)
	n.ssh.NewHostKey(t)
	f.Close()
	setConfig(f, "c: 1\n")
	if _, _, err := f.tryDeploy(t.Context()); !errors.Is(err, ErrHostKeyChanged) {
		t.Errorf("another key: %v", err)
	}
}

func TestHostKeyUnknown(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	f.Dialer.AcceptNew = false
	known := func() string {
		b, _ := os.ReadFile(filepath.Join(f.home, ".ssh/known_hosts"))
		return string(b)
	}
	if _, err := f.Plan(t.Context()); !errors.Is(err, ErrHostKeyUnknown) {
		t.Errorf("nobody to ask: %v", err)
	}
	answer, asked := "no\n", ""
	f.Dialer.Ask = func(q string, _ bool) (string, error) {
		asked = q
		return answer, nil
	}
	if _, err := f.Plan(t.Context()); !errors.Is(err, ErrHostKeyUnknown) || known() != "" {
		t.Errorf("not taken: %v, known_hosts %q", err, known())
	}
	answer = "Y\n"
	if _, err := f.Plan(t.Context()); err != nil {
		t.Errorf("taken: %v", err)
	}
	for _, want := range []string{"hel1 (" + n.addr + ")", ssh.FingerprintSHA256(n.ssh.HostKey()),
		"ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", "(yes/no)? "} {
		if !strings.Contains(asked, want) {
			t.Errorf("the question lacks %q: %q", want, asked)
		}
	}
	if !strings.Contains(known(), "ssh-ed25519 ") {
		t.Errorf("known_hosts is %q", known())
	}
	f.Close()
	f.Dialer.Ask, f.Dialer.taken = nil, nil
	if _, err := f.Plan(t.Context()); err != nil {
		t.Errorf("known: %v", err)
	}
}

// A machine that is down is reported at once as such. No connection was lost, so there are no
// retries.
func TestMachineDown(t *testing.T) {
	f := newTestFleet(t, "hel1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nothing listens there any more
	f.Nodes[0].SSH = "root@" + l.Addr().String()
	f.Dialer.Pause = time.Hour
	_, err = f.Plan(t.Context())
	if want := "node hel1: can't connect to " + l.Addr().String() +
		": connect: connection refused: the machine is up, but no SSH server is at this port"; err == nil ||
		err.Error() != want {
		t.Errorf("the error is %q, want %q", err, want)
	}
	if f.out.Len() > 0 {
		t.Errorf("it says\n%s", f.out.String())
	}
}

// After a lasting loss of the connection, the error has the number of tries.
func TestConnectionLostForGood(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	f.Dialer.Retries = 2
	p, err := f.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.ssh.Close()
	_, err = f.Apply(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(),
		"node hel1: upload the binary: failed 3 times; the last error: can't connect to "+n.addr) {
		t.Errorf("the error is %v", err)
	}
	if out := f.out.String(); !strings.Contains(out, "; retrying (1 of 2)\n") ||
		!strings.Contains(out, "; retrying (2 of 2)\n") {
		t.Errorf("it says\n%s", out)
	}
}

func TestSSHConfigAndJump(t *testing.T) {
	f := newTestFleet(t, "jump", "hel1")
	host := func(name string) (string, string) {
		h, p, err := net.SplitHostPort(f.nodes[name].addr)
		if err != nil {
			t.Fatal(err)
		}
		return h, p
	}
	jh, jp := host("jump")
	hh, hp := host("hel1")
	if err := os.Rename(filepath.Join(f.home, ".ssh/id_ed25519"), filepath.Join(f.home, ".ssh/mine")); err != nil {
		t.Fatal(err)
	}
	conf := "Host edge-*\n HostName " + hh + "\n Port " + hp + "\n ProxyJump gate\nHost gate\n HostName " + jh +
		"\n Port " + jp + "\n User ops\nHost *\n IdentityFile ~/.ssh/mine\n User root\n"
	if err := os.WriteFile(filepath.Join(f.home, ".ssh/config"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := f.Dialer.Dial(t.Context(), "", "edge-hel1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if out, err := c.Run(t.Context(), "cat; echo $1", []string{"it's"}, []byte("in ")); err != nil ||
		string(out) != "in it's\n" {
		t.Errorf("%q, %v", out, err)
	}
	if f.nodes["jump"].connections() != 1 || f.nodes["hel1"].connections() != 1 {
		t.Errorf("%d connections to the jump, %d to the node", f.nodes["jump"].connections(),
			f.nodes["hel1"].connections())
	}
}

// A ProxyCommand is run in place of a TCP connection, ends with the connection, and is quoted when
// it fails. No name of a host gets into its shell.
func TestProxyCommand(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash connects in place of nc:", err)
	}
	f := newTestFleet(t, "hel1")
	host, port, err := net.SplitHostPort(f.nodes["hel1"].addr)
	if err != nil {
		t.Fatal(err)
	}
	conf := "Host gate\n HostName " + host + "\n Port " + port +
		"\n ProxyCommand bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3'\n" +
		"Host broken\n ProxyCommand echo no way to %h >&2\n" +
		"Host *\n User root\n ProxyCommand touch " + filepath.Join(f.home, "ran") + "\n"
	if err := os.WriteFile(filepath.Join(f.home, ".ssh/config"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := f.Dialer.connect(t.Context(), "", "gate")
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	_ = client.Wait()
	f.Dialer.Retries = 1
	for target, want := range map[string]string{
		"broken":       "its ProxyCommand says: no way to broken",
		"a`touch$IFSx": "must not go into the shell command",
		"$(id)@b":      "must not go into the shell command",
	} {
		if c, err := f.Dialer.Dial(t.Context(), "", target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, error %v", target, c, err)
		}
	}
	if _, err := os.Stat(filepath.Join(f.home, "ran")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a shell ran what a name said: %v", err)
	}
}

func TestSudo(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	n.write(t, "/run/uid", "1000\n")
	f.deploy(t)
	if n.running() != f.Binaries[0].Version() || !strings.Contains(n.read("/run/sudo.log"), "sh\n") {
		t.Errorf("%s runs; sudo ran %q", n.running(), n.read("/run/sudo.log"))
	}
}

func TestSplitTarget(t *testing.T) {
	for in, want := range map[string][3]string{
		"root@203.0.113.10":            {"root", "203.0.113.10", ""},
		"deploy@198.51.100.20:2222":    {"deploy", "198.51.100.20", "2222"},
		"hel1":                         {"", "hel1", ""},
		"root@[2001:db8::1]:22":        {"root", "2001:db8::1", "22"},
		"[2001:db8::1]":                {"", "2001:db8::1", ""},
		"2001:db8::1":                  {"", "2001:db8::1", ""},
		"ssh://ops@host.example:2200/": {"ops", "host.example", "2200"},
	} {
		user, name, port, err := splitTarget(in)
		if got := [3]string{user, name, port}; err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "root@", "-oProxyCommand=x", "a b"} {
		if _, _, _, err := splitTarget(in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}

// Interrupt during the wait for resolvers: nothing is changed and the drained edge is undrained.
func TestInterrupted(t *testing.T) {
	f := newTestFleet(t, "hel1", "nyc1")
	f.deploy(t)
	setConfig(f, "c: 1\n")
	f.Settle = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	f.onDrain = func(string, bool) { cancel() }
	_, r, err := f.tryDeploy(ctx)
	if !errors.Is(err, context.Canceled) || len(f.drained()) > 0 {
		t.Errorf("%v; %q stay drained", err, f.drained())
	}
	for _, o := range r.Nodes {
		if n := f.nodes[o.Node]; o.Outcome != "untouched" || n.read("/etc/kaiku/fleet.yaml") == "c: 1\n" ||
			n.running() != f.Binaries[0].Version() {
			t.Errorf("%+v", o)
		}
	}

	// Interrupt during a restart: the restart is finished.
	f.Settle, f.onDrain = time.Millisecond, nil
	ctx, cancel = context.WithCancel(t.Context())
	p, err := f.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Deploy.Fleet = onHealth{f, cancel}
	r, err = f.Apply(ctx, p)
	if !errors.Is(err, context.Canceled) || r.Nodes[0].Outcome != "done" || r.Nodes[1].Outcome != "untouched" ||
		len(f.drained()) > 0 {
		t.Errorf("%v, %+v; %q stay drained", err, r, f.drained())
	}
}

// onHealth calls a function before each health check.
type onHealth struct {
	*testFleet
	do func()
}

// Healthy calls the function and then checks the node.
func (h onHealth) Healthy(ctx context.Context, node string, dial DialFunc) error {
	h.do()
	return h.testFleet.Healthy(ctx, node, dial)
}

func TestOrder(t *testing.T) {
	d := &Deploy{Batch: 50}
	add := func(name, region string, phase Phase, edge bool) {
		d.Nodes = append(d.Nodes, Node{Name: name, Region: region, Phase: phase, Edge: edge})
	}
	add("e1", "eu", Edge, true)
	add("e2", "eu", Edge, true)
	add("e3", "eu", Edge, true)
	add("u1", "us", Edge, true)
	add("u2", "us", Edge, true)
	add("a1", "", Edge, true)
	add("ns1", "", NameServer, false)
	add("c1", "eu", Control, true)
	p := &Plan{}
	for i := range d.Nodes {
		p.Nodes = append(p.Nodes, &NodePlan{Node: d.Nodes[i].Name, Process: "restart", node: &d.Nodes[i],
			state: &state{active: true}})
	}
	var got []string
	for _, g := range d.groups(p, false) {
		got = append(got, strings.Join(names(g), " "))
	}
	if want := []string{"c1", "ns1", "e1 e2 e3", "a1 u1", "u2"}; !slices.Equal(got, want) {
		t.Errorf("groups %q, want %q", got, want)
	}
	d.Batch = 100
	for _, g := range d.groups(p, false)[2:] {
		if text := strings.Join(names(g), " "); strings.Contains(text, "u1 u2") {
			t.Errorf("a batch has all of a region: %s", text)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte("kernel Linux\nmachine x86_64\nsystemd\nfree 12\ncurrent a\nrunning a\nversion a\nbinary b\nactive active\nenabled enabled\ndeployed /etc/a\n" +
		"file 644 " + strings.Repeat("a", 64) + " /etc/a b\npid 7\nlistens 80\nsocket " + nginxSocket + "\nend\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseState(b)
		if err != nil {
			return
		}
		if st.free < 0 {
			t.Errorf("%d bytes are free", st.free)
		}
		for _, p := range st.deployed {
			if CheckPath(p) != nil {
				t.Errorf("%q may be removed", p)
			}
		}
	})
}

func FuzzParsePart(f *testing.F) {
	f.Add([]byte("have\n"))
	f.Add([]byte("123\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if at, _, err := parsePart(b, 1000); err == nil && (at < 0 || at > 1000) {
			t.Errorf("%d of 1000", at)
		}
	})
}
