package deploy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/kaiku-cdn/kaiku/deploy/sshtest"
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
	f.operator = sshtest.WriteKey(t, filepath.Join(f.home, ".ssh/id_ed25519"))
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

func setConfig(f *testFleet, text string) {
	for i := range f.Nodes {
		f.Nodes[i].Files[0].Data = []byte(text)
	}
}
