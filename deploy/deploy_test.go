package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// testFleet is a fleet of test nodes and the Deploy for it. It implements Fleet: it asks the
// processes of the nodes and records drains.
type testFleet struct {
	*Deploy
	operator ssh.PublicKey
	home     string
	out      bytes.Buffer
	nodes    map[string]*testNode

	mu       sync.Mutex
	draining map[string]bool
	events   []string
	onDrain  func(node string, drain bool)
	members  []string // of the control plane
	grouped  bool
	onSites  func(node string) []SiteAnswer // nil means no sites
}

func newTestFleet(t *testing.T, names ...string) *testFleet {
	t.Helper()
	f := &testFleet{nodes: map[string]*testNode{}, draining: map[string]bool{}, home: t.TempDir()}
	f.operator = writeKey(t, filepath.Join(f.home, ".ssh/id_ed25519"))
	f.Deploy = &Deploy{Fleet: f, Binaries: []*Binary{testBinary(t, "one")}, Settle: time.Millisecond,
		Limit: 3 * time.Second, Every: 5 * time.Millisecond, Out: &f.out,
		Dialer: &Dialer{Home: f.home, AcceptNew: true, Pause: time.Millisecond}}
	for _, name := range names {
		n := newTestNode(t, name, f.operator)
		f.nodes[name] = n
		f.Nodes = append(f.Nodes, Node{Name: name, SSH: "root@" + n.addr, Phase: Edge, Edge: true,
			Service: Service{Listen: []string{":80"}, Memory: 1 << 30},
			Files: []File{{Path: "/etc/kaiku/fleet.yaml", Data: []byte("a: 1\nb: 2\n")},
				{Path: "/etc/kaiku/fleet.key", Data: []byte("hush-hush\n"), Secret: true}}})
	}
	t.Cleanup(func() { f.Close() })
	return f
}

var built struct {
	sync.Once
	text []byte
	err  error
}

// testBinary returns the program of testdata/kaiku with end appended, which makes it a different
// version.
func testBinary(t *testing.T, end string) *Binary {
	t.Helper()
	built.Do(func() {
		out := filepath.Join(t.TempDir(), "kaiku")
		cmd := exec.Command("go", "build", "-trimpath", "-o", out, "./testdata/kaiku")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w: %s", err, text)
			return
		}
		built.text, built.err = os.ReadFile(out)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	path := filepath.Join(t.TempDir(), "kaiku")
	if err := os.WriteFile(path, append(bytes.Clone(built.text), end...), 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := OpenBinary(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Healthy asks the process of the node through its SSH connection.
func (f *testFleet) Healthy(ctx context.Context, node string, dial DialFunc) error {
	c, err := dial(ctx, "tcp", f.nodes[node].read("/run/ready"))
	if err != nil {
		return err
	}
	defer c.Close()
	answer, err := io.ReadAll(c)
	if err == nil && string(answer) != "ok" {
		err = fmt.Errorf("it says %q", answer)
	}
	f.event(node, "health", err)
	return err
}

// Spare returns ErrNoControl for a node that is not a member of the control plane, else nil.
func (f *testFleet) Spare(_ context.Context, node string, _ DialFunc) error {
	f.event(node, "spare", nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.members != nil && !slices.Contains(f.members, node) {
		return ErrNoControl
	}
	return nil
}

// Sites returns what onSites returns.
func (f *testFleet) Sites(_ context.Context, node string, _ DialFunc) []SiteAnswer {
	if f.onSites == nil {
		return nil
	}
	f.event(node, "sites", nil)
	return f.onSites(node)
}

// Members returns members if node is one of them.
func (f *testFleet) Members(_ context.Context, node string, _ DialFunc) (Members, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.members, node) {
		return Members{}, ErrNoControl
	}
	return Members{Names: slices.Clone(f.members), Grouped: f.grouped}, nil
}

// Remove removes a member.
func (f *testFleet) Remove(_ context.Context, member string, _ DialFunc, node string) error {
	f.event(node, "removed, asked "+member, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = slices.DeleteFunc(f.members, func(n string) bool { return n == node })
	return nil
}

// Drain records the drain.
func (f *testFleet) Drain(_ context.Context, node string, _ DialFunc, drain bool) (bool, error) {
	what := "undrain"
	if drain {
		what = "drain"
	}
	f.event(node, what, nil)
	f.mu.Lock()
	changed := f.draining[node] != drain
	f.draining[node] = drain
	f.mu.Unlock()
	if f.onDrain != nil {
		f.onDrain(node, drain)
	}
	return changed, nil
}

func (f *testFleet) event(node, what string, err error) {
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := node + " " + what; len(f.events) == 0 || f.events[len(f.events)-1] != e {
		f.events = append(f.events, e)
	}
}

func (f *testFleet) drained() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for n, d := range f.draining {
		if d {
			out = append(out, n)
		}
	}
	return out
}

// deploy plans and applies, and fails the test if that fails.
func (f *testFleet) deploy(t *testing.T) (*Plan, *Report) {
	t.Helper()
	p, r, err := f.tryDeploy(t.Context())
	if err != nil {
		t.Fatalf("deploy: %v\n%s", err, f.out.String())
	}
	return p, r
}

func (f *testFleet) tryDeploy(ctx context.Context) (*Plan, *Report, error) {
	p, err := f.Plan(ctx)
	if err != nil {
		return nil, nil, err
	}
	r, err := f.Apply(ctx, p)
	return p, r, err
}

func planText(p *Plan) string {
	var b strings.Builder
	_, _ = p.WriteTo(&b)
	return b.String()
}

func TestFirstAndSecondDeploy(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	p, r := f.deploy(t)
	for _, want := range []string{"install kaiku " + f.Binaries[0].Version(), "install /etc/kaiku/fleet.key (a secret)",
		"install /etc/systemd/system/kaiku.socket", "start kaiku.service"} {
		if !strings.Contains(planText(p), want) {
			t.Errorf("the plan lacks %q:\n%s", want, planText(p))
		}
	}
	if got := r.Nodes[0]; got.Outcome != "done" || got.Version != f.Binaries[0].Version() ||
		n.running() != f.Binaries[0].Version() {
		t.Errorf("the report is %+v, %s runs", got, n.running())
	}
	if info, err := os.Stat(n.root + "/etc/kaiku/fleet.key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secret: %v, %v", info, err)
	}
	if owners := n.read("/run/chown.log"); !strings.Contains(owners, "kaiku: ") ||
		!strings.Contains(owners, "/etc/kaiku/fleet.key") {
		t.Errorf("owners: %s", owners)
	}
	if strings.Contains(n.allCommands()+f.out.String()+planText(p), "hush") {
		t.Error("the secret is in a command line, or was printed")
	}
	if _, err := os.Stat(n.root + "/etc/kaiku/.before"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was before is still kept: %v", err)
	}

	before, pid := n.tree(t, "/"), n.pid()
	p, _ = f.deploy(t)
	if !p.Nothing() || !strings.Contains(planText(p), "nothing to do\n") {
		t.Errorf("the second deploy has something to do:\n%s", planText(p))
	}
	if n.pid() != pid {
		t.Error("the second deploy restarted the process")
	}
	after := n.tree(t, "/")
	if i := strings.Index(before, "/run/systemctl.log"); i < 0 || stripRun(before) != stripRun(after) {
		t.Errorf("the second deploy changed something:\n%s\n%s", before, after)
	}
}

// stripRun removes the files of the stand-ins from a listing.
func stripRun(tree string) string {
	var out strings.Builder
	for line := range strings.Lines(tree) {
		if !strings.HasPrefix(line, "/run/") {
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestChangedConfig(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	f.Nodes[0].Files = append(f.Nodes[0].Files, File{Path: "/etc/kaiku/zones/old zone", Data: []byte("x")})
	f.deploy(t)
	pid := n.pid()
	f.Nodes[0].Files = f.Nodes[0].Files[:2]
	f.Nodes[0].Files[0].Data = []byte("a: 1\nb: 3\n")
	f.Nodes[0].Files[1].Data = []byte("hush-anew\n")
	p, _ := f.deploy(t)
	text := planText(p)
	for _, want := range []string{"    -b: 2\n", "    +b: 3\n", "change /etc/kaiku/fleet.key (a secret)\n",
		"remove /etc/kaiku/zones/old zone\n", "restart kaiku.service"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "hush") {
		t.Errorf("the plan shows a secret:\n%s", text)
	}
	if n.read("/etc/kaiku/fleet.yaml") != "a: 1\nb: 3\n" || n.read("/etc/kaiku/fleet.key") != "hush-anew\n" ||
		n.read("/etc/kaiku/zones/old zone") != "" || n.pid() == pid {
		t.Errorf("not changed:\n%s", n.tree(t, "/etc"))
	}
	if want := []string{"hel1 health", "hel1 drain", "hel1 health", "hel1 undrain"}; !slices.Equal(f.events, want) {
		t.Errorf("events %q, want %q", f.events, want)
	}

	// A change that the process can reload does not restart it.
	pid = n.pid()
	f.Nodes[0].Files[0].Data = []byte("a: 1\nb: 4\n")
	f.Nodes[0].Files[0].Effect = func(before []byte) Effect {
		if string(before) == "a: 1\nb: 3\n" {
			return Reload
		}
		return Restart
	}
	p, _ = f.deploy(t)
	if p.Nodes[0].Process != "reload" || n.pid() != pid || len(f.drained()) > 0 {
		t.Errorf("process %q, pid %d was %d", p.Nodes[0].Process, n.pid(), pid)
	}
}

func TestVersionsKept(t *testing.T) {
	f := newTestFleet(t, "hel1")
	var versions []string
	for _, end := range []string{"one", "two", "three"} {
		f.Binaries = []*Binary{testBinary(t, end)}
		versions = append(versions, f.Binaries[0].Version())
		f.deploy(t)
	}
	p, err := f.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(versions[1:])
	if got := p.Nodes[0].state.versions; !slices.Equal(got, versions[1:]) {
		t.Errorf("kept %q, want %q", got, versions[1:])
	}
}

func TestFailedHealthIsPutBack(t *testing.T) {
	for name, sicken := range map[string]func(t *testing.T, f *testFleet){
		"binary":        func(t *testing.T, f *testFleet) { f.Binaries = []*Binary{testBinary(t, "sick")} },
		"configuration": func(_ *testing.T, f *testFleet) { setConfig(f, "sick: 1\n") },
		"start":         func(_ *testing.T, f *testFleet) { setConfig(f, "broken: 1\n") },
	} {
		t.Run(name, func(t *testing.T) {
			f := newTestFleet(t, "hel1", "nyc1")
			f.Limit = 5 * time.Second
			f.deploy(t)
			trees := map[string]string{}
			for name, n := range f.nodes {
				trees[name] = stripRun(n.tree(t, "/etc"))
			}
			good := f.Binaries[0].Version()
			sicken(t, f)
			_, r, err := f.tryDeploy(t.Context())
			if !errors.Is(err, errStopped) {
				t.Fatalf("the deploy ended with %v", err)
			}
			if o := r.Nodes[0]; o.Outcome != "put back" || o.Version != good {
				t.Errorf("the first node is %+v", o)
			}
			for _, o := range r.Nodes[1:] {
				if o.Outcome != "untouched" || o.Version != good {
					t.Errorf("node %s is %+v", o.Node, o)
				}
			}
			for name, n := range f.nodes {
				if got := stripRun(n.tree(t, "/etc")); n.running() != good || got != trees[name] {
					t.Errorf("%s runs %s and has\n%s\nbefore it had\n%s", name, n.running(), got, trees[name])
				}
			}
			if len(f.drained()) > 0 {
				t.Errorf("%q stay drained", f.drained())
			}
			if name == "start" && !strings.Contains(err.Error(), "fleet.yaml is broken") {
				t.Errorf("the error does not have the log: %v", err)
			}
		})
	}
}

func setConfig(f *testFleet, text string) {
	for i := range f.Nodes {
		f.Nodes[i].Files[0].Data = []byte(text)
	}
}

func TestFirstDeployPutBackLeavesNothing(t *testing.T) {
	f := newTestFleet(t, "hel1")
	f.Limit = 300 * time.Millisecond
	f.Binaries = []*Binary{testBinary(t, "sick")}
	_, r, err := f.tryDeploy(t.Context())
	if err == nil || r.Nodes[0].Outcome != "put back" {
		t.Fatalf("%v, %+v", err, r)
	}
	if n := f.nodes["hel1"]; n.running() != "." || n.tree(t, "/etc") != "" || n.read("/run/enabled") != "" {
		t.Errorf("something is left: %s runs\n%s", n.running(), n.tree(t, "/etc"))
	}
}

func TestConnectionLostIsResumed(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	n.serial.Store(true)
	p, err := f.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	start := n.received.Load()
	n.cutAfter.Store(start + f.Binaries[0].Size/2)
	if _, err := f.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if n.running() != f.Binaries[0].Version() || n.connections() < 2 {
		t.Fatalf("%s runs after %d connections", n.running(), n.connections())
	}
	resumed := regexp.MustCompile(f.Binaries[0].SHA256 + `' '[1-9][0-9]*' '` + fmt.Sprint(f.Binaries[0].Size))
	if !resumed.MatchString(n.allCommands()) {
		t.Error("the upload did not go on from where it was cut")
	}
}

// Losing the connection during any script does not change the outcome.
func TestConnectionLostAtEachScript(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	f.deploy(t)
	for i := range 6 {
		setConfig(f, fmt.Sprintf("a: %d\n", i))
		n.cutAfter.Store(n.received.Load() + int64(4000*i+1))
		f.deploy(t)
		if got := n.read("/etc/kaiku/fleet.yaml"); got != fmt.Sprintf("a: %d\n", i) {
			t.Fatalf("cut after %d bytes: the file is %q", 4000*i+1, got)
		}
		n.cutAfter.Store(0)
		if p, _ := f.deploy(t); !p.Nothing() {
			t.Fatalf("cut after %d bytes: there is more to do:\n%s", 4000*i+1, planText(p))
		}
	}
}

func TestDiskFull(t *testing.T) {
	f := newTestFleet(t, "hel1", "nyc1")
	n := f.nodes["hel1"]
	n.write(t, "/run/free", "1000\n")
	_, _, err := f.tryDeploy(t.Context())
	if err == nil || !strings.Contains(err.Error(), "node hel1: its disk is full") {
		t.Errorf("a full disk: %v", err)
	}
	// The disk may also fill up during a write. A limit on file sizes causes the same failure.
	n.write(t, "/run/free", "10000000\n")
	n.fileSizeLimit.Store(1000)
	_, _, err = f.tryDeploy(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the node is as it was") {
		t.Errorf("a disk that gets full: %v", err)
	}
	for name, n := range f.nodes {
		if got := n.tree(t, "/etc"); got != "" || n.running() != "." {
			t.Errorf("%s has\n%s", name, got)
		}
	}
	if got := n.tree(t, "/usr"); got != "" {
		t.Errorf("a part is left:\n%s", got)
	}
}
