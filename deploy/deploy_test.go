package deploy

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

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
	if err == nil || !strings.Contains(err.Error(), "nothing was changed") {
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
