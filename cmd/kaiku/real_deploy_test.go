//go:build real

package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// Three machines, each with Debian's OpenSSH server in its own namespaces, get a fleet, an upgrade,
// and two versions that are not healthy. Clients on three continents send requests all the while,
// and find the edges by GeoDNS. No request is lost. systemd is not process 1 on a test machine, so
// bench/world/machine stands in for it. That does what the units say about processes and sockets,
// but has no sandbox. TestRealUnits checks the sandbox.
func TestRealDeploy(t *testing.T) {
	if !inWorld() {
		runInWorld(t)
		return
	}
	d := &upgrades{world: newWorld(t)}
	d.writeFleet(t)
	d.one, d.two = d.build(t, ".", "-buildid=one"), d.build(t, ".", "-buildid=two")
	d.ends = d.build(t, "./testdata/sick", "-X main.how=ends")
	d.sick = d.build(t, "./testdata/sick", "-X main.how=ready")

	t.Run("a port is taken", d.portTaken)
	if !t.Run("first deploy", d.first) {
		return
	}
	d.traffic = startTraffic(t, []string{"10.77.0.11:53", "10.77.0.12:53"}, d.files)
	testwait.Until(t, "all nodes are asked", func() bool { return len(d.traffic.served()) == 3 })
	t.Run("upgrade", d.upgrade)
	t.Run("nothing", d.nothing)
	t.Run("ends at once", d.endsAtOnce)
	t.Run("fails its health check", d.failsHealth)
	t.Run("wrong origin", d.wrongOrigin)
	d.traffic.stop()
	d.traffic.lostNone(t)
	if out := d.ssh(t, "n1", "stat -c '%U %n' /var/log/kaiku/access.json /var/log/kaiku/dns/queries.json; head -n 1 /var/log/kaiku/access.json"); !strings.Contains(out, "kaiku /var/log/kaiku/access.json\nkaiku /var/log/kaiku/dns/queries.json\n{") {
		t.Errorf("the logs are %s", out)
	}
	t.Logf("%v", d.traffic)
	if len(d.traffic.served()) != 3 {
		t.Errorf("%v: want all nodes", d.traffic.served())
	}
}

// upgrades is a fleet that gets several versions.
type upgrades struct {
	*world
	one, two, ends, sick *deploy.Binary // ends exits at once; sick is never healthy
	traffic              *traffic
}

func (d *upgrades) portTaken(t *testing.T) {
	dryRun := func() (string, error) {
		out, err := d.command("deploy", "--config", d.config, "--binary", d.one.Path, "--accept-new-host-keys",
			"--dry-run").CombinedOutput()
		return string(out), err
	}
	if out, err := dryRun(); err != nil {
		t.Fatalf("nothing is in the way: %v\n%s", err, out)
	}
	d.ssh(t, "n2", `printf 'pid /run/other.pid; events {} http { server { listen 80; } }' >/tmp/other.conf; nginx -c /tmp/other.conf >/dev/null 2>&1 </dev/null`)
	if out, err := dryRun(); err == nil || !strings.Contains(out, "node n2: nginx (pid ") ||
		!strings.Contains(out, " listens on *:80/tcp, which edge.http needs: stop it") {
		t.Errorf("nginx has the port: %v\n%s", err, out)
	}
	d.ssh(t, "n2", `kill "$(cat /run/other.pid)"; while ss -Hlnt | grep ':80 '; do sleep 0.1; done`)
}

func (d *upgrades) first(t *testing.T) {
	r := d.deploy(t, d.one)
	r.want(t, 0, d.one, "done", "done", "done")
	d.runs(t, d.one)
	for i, a := range r.report.Sites {
		if a.Node != d.nodes[i] || a.Site != "www" || a.URL != "http://www.example.com/" || a.Status != 200 ||
			!a.Well() {
			t.Errorf("the site is %+v", a)
		}
	}
	if len(r.report.Sites) != 3 {
		t.Errorf("%d edges were asked for the site", len(r.report.Sites))
	}
}

func (d *upgrades) upgrade(t *testing.T) {
	r := d.deploy(t, d.two)
	r.want(t, 0, d.two, "done", "done", "done")
	d.runs(t, d.two)
	d.traffic.lostNone(t)
}

func (d *upgrades) nothing(t *testing.T) {
	r := d.deploy(t, d.two)
	r.want(t, 0, d.two) // there is no report, because nothing was done
	if !r.plan.Nothing() {
		t.Errorf("a second deploy has something to do: %s", r.stdout)
	}
	if out := d.kaiku(t, "deploy", "--config", d.config, "--binary", d.two.Path, "--dry-run"); !strings.HasSuffix(out,
		"\nnothing to do\n") {
		t.Errorf("a second deploy says\n%s", out)
	}
}

func (d *upgrades) endsAtOnce(t *testing.T) {
	r := d.deploy(t, d.ends)
	r.want(t, 1, d.two, "put back", "untouched", "untouched")
	for _, want := range []string{"node n1: job for kaiku.service failed", "this version ends at once",
		"n1: undrained"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("it does not say %q:\n%s", want, r.stderr)
		}
	}
	d.runs(t, d.two)
	d.traffic.lostNone(t)
}

func (d *upgrades) failsHealth(t *testing.T) {
	r := d.deploy(t, d.sick, "--health-limit", "25s")
	r.want(t, 1, d.two, "put back", "untouched", "untouched")
	for _, want := range []string{"not healthy within 25s: control plane: ", "onnection refused"} {
		// that version has no control plane
		if !strings.Contains(r.stderr, want) {
			t.Errorf("it does not say why: want %q in\n%s", want, r.stderr)
		}
	}
	d.runs(t, d.two)
	d.traffic.lostNone(t)
}

func (d *upgrades) wrongOrigin(t *testing.T) {
	good := readFile(t, d.config)
	wrong := strings.Replace(good, "10.77.0.1:8000", "10.77.0.1:8001", 1)
	if err := os.WriteFile(d.config, []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	r := d.deploy(t, d.two)
	r.want(t, 1, d.two, "put back", "untouched", "untouched")
	for _, want := range []string{"site www: GET http://www.example.com/ gets ", "http://10.77.0.1:8001 fails",
		"nothing listens on 10.77.0.1:8001", "before this deploy it was well"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("it does not say %q:\n%s", want, r.stderr)
		}
	}
	if err := os.WriteFile(d.config, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	d.runs(t, d.two)
	if r := d.deploy(t, d.two); !r.plan.Nothing() {
		t.Errorf("something was not put back: %s", r.stdout)
	}
	d.traffic.lostNone(t)
}

// deployment is the result of a deploy.
type deployment struct {
	code           int
	stdout, stderr string
	plan           deploy.Plan
	report         deploy.Report
}

// deploy deploys a program to all nodes.
func (w *world) deploy(t *testing.T, b *deploy.Binary, args ...string) *deployment {
	t.Helper()
	cmd := w.command(append([]string{"deploy", "--config", w.config, "--binary", b.Path, "--accept-new-host-keys",
		"--health-every", "200ms", "--json"}, args...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	d := &deployment{code: cmd.ProcessState.ExitCode(), stdout: out.String(), stderr: errs.String()}
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	t.Logf("deploy in %v: exit code %d\n%s", time.Since(began).Round(time.Second/10), d.code, d.stderr)
	lines := json.NewDecoder(strings.NewReader(d.stdout))
	if err := lines.Decode(&d.plan); err != nil {
		t.Fatalf("no plan: %v\n%s", err, d.stdout)
	}
	if lines.More() {
		if err := lines.Decode(&d.report); err != nil {
			t.Fatalf("no report: %v\n%s", err, d.stdout)
		}
	}
	return d
}

// want checks the exit code and the outcome for each node. In the end, all nodes must have
// the version.
func (d *deployment) want(t *testing.T, code int, has *deploy.Binary, outcomes ...string) {
	t.Helper()
	if d.code != code || len(d.report.Nodes) != len(outcomes) {
		t.Fatalf("exit code %d, want %d; want %q in\n%s", d.code, code, outcomes, d.stdout)
	}
	for i, n := range d.report.Nodes {
		if n.Outcome != outcomes[i] || n.Version != has.Version() {
			t.Errorf("%s is %s with %s, want %s with %s", n.Node, n.Outcome, n.Version, outcomes[i], has.Version())
		}
	}
	for _, clutter := range []string{"sysctl", "net.core"} {
		if strings.Contains(d.stderr, clutter) {
			t.Errorf("the kernel's settings are spoken of:\n%s", d.stderr)
		}
	}
}

// runs checks over Debian's ssh that every node runs a program as it should, and that none is
// drained.
func (w *world) runs(t *testing.T, b *deploy.Binary) {
	t.Helper()
	for _, n := range w.nodes {
		out := w.ssh(t, n, `pid=$(systemctl show -p MainPID --value kaiku.service)
readlink "/proc/$pid/exe"; stat -c %U "/proc/$pid"; systemctl is-active kaiku.service kaiku.socket; systemctl is-enabled kaiku.service; ls -A /etc/kaiku
kaiku status --json --token-file /etc/kaiku/admin.token`)
		for _, want := range []string{"/usr/local/lib/kaiku/" + b.Version() + "/kaiku\nkaiku\nactive\nenabled\n",
			"\nfleet.yaml\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: want %q in\n%s", n, want, out)
			}
		}
		if strings.Contains(out, `"draining":true`) || strings.Contains(out, ".before") ||
			strings.Contains(out, ".next") {
			t.Errorf("%s: something is left of a deploy:\n%s", n, out)
		}
	}
}

// build builds a program. The linker flags make it a different version.
func (w *world) build(t *testing.T, from, ldflags string) *deploy.Binary {
	t.Helper()
	dir, err := os.MkdirTemp(w.dir, "build")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", ldflags, "-o", dir+"/kaiku", from)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", from, err, out)
	}
	b, err := deploy.OpenBinary(dir + "/kaiku")
	if err != nil {
		t.Fatal(err)
	}
	return b
}
