//go:build real

package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// An operator's day: the commands of docs/deploy.md in the order in which an operator needs them,
// on machines like those of TestRealDeploy. All the while, clients on three continents request
// files, and a page is changed and purged again and again. No request and no purge is lost.
func TestRealOperatorsDay(t *testing.T) {
	if !inWorld() {
		runInWorld(t)
		return
	}
	d := newDay(t)
	t.Run("first deploy", d.firstDeploy)
	if t.Failed() {
		t.FailNow()
	}
	d.traffic = startTraffic(t, []string{"10.77.0.11:53", "10.77.0.12:53"}, d.files)
	d.purger = startPurger(t, d)
	for _, step := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"rotate the admin token", d.rotateToken},
		{"rotate the fleet key", d.rotateKey},
		{"add a node", d.addEdge},
		{"one control node to three", d.growControl},
		{"replace a node", d.replaceNode},
		{"remove a node", d.removeNode},
		{"upgrade", d.upgrade},
		{"a wrong origin is refused", d.wrongOrigin},
	} {
		began := time.Now()
		ok := t.Run(step.name, step.do)
		t.Logf("%s: %v; %v", step.name, time.Since(began).Round(time.Second/10), d.traffic)
		d.traffic.lostNone(t)
		d.purger.brokeNone(t)
		if !ok {
			t.FailNow() // later steps depend on this one
		}
	}
	d.traffic.stop()
	d.purger.stop()
	d.traffic.lostNone(t)
	d.purger.brokeNone(t)
	t.Logf("%v; %v", d.traffic, d.purger)
}

// day is a world with a fleet whose origin serves HTTPS under its own name.
type day struct {
	*world
	top     *testing.T // of all steps: what one step starts runs on in the next
	traffic *traffic
	purger  *purger
}

const dayOrigin = "origin.example.net"

// newDay makes the origin, and the machines, which all know the origin's name.
func newDay(t *testing.T) *day {
	t.Helper()
	d := &day{world: newWorld(t), top: t}
	certs := filepath.Join(d.dir, "certs")
	if err := os.Mkdir(certs, 0o755); err != nil {
		t.Fatal(err)
	}
	writeCertificates(t, certs, dayOrigin)
	d.files, _ = nginxOriginTLS(t, "10.77.0.1:8443", dayOrigin, filepath.Join(certs, dayOrigin+".pem"),
		filepath.Join(certs, dayOrigin+".key"))
	d.config = filepath.Join(d.dir, "fleet", "fleet.yaml")
	hosts := filepath.Join(d.dir, "hosts") // of this process and the operator
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n10.77.0.1 "+dayOrigin+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(hosts, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for _, n := range d.nodes {
		d.knowsOrigin(t, n)
	}
	return d
}

// knowsOrigin adds the origin's name to a machine's /etc/hosts.
func (d *day) knowsOrigin(t *testing.T, node string) {
	t.Helper()
	d.run(t, "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o",
		"UserKnownHostsFile="+d.home+"/.ssh/known_hosts",
		"-i", d.home+"/.ssh/id_ed25519", "root@"+d.addrs[node], "echo 10.77.0.1 "+dayOrigin+" >>/etc/hosts")
}

// edit replaces a text that the fleet file has exactly once.
func (d *day) edit(t *testing.T, old, text string) {
	t.Helper()
	b, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), old); n != 1 {
		t.Fatalf("the fleet file has %q %d times, want once:\n%s", old, n, b)
	}
	if err := os.WriteFile(d.config, []byte(strings.Replace(string(b), old, text, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// get fetches a file of the site from one edge.
func (d *day) get(node, file string) (status int, cache, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+d.addr(node)+file, nil)
	if err != nil {
		return 0, "", "", err
	}
	r.Host = "www.example.com"
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.Join(resp.Header["Cache-Status"], ", "), string(b), err
}

// hits checks that the second GET of a file is a hit on every node.
func (d *day) hits(t *testing.T, file string) {
	t.Helper()
	for _, n := range d.nodes {
		for try := range 2 {
			status, cache, _, err := d.get(n, file)
			if err != nil || status != http.StatusOK || try == 1 && !strings.Contains(cache, "hit") {
				t.Errorf("%s, request %d of %s: %d, %s, %v", n, try+1, file, status, cache, err)
			}
		}
	}
}

// rolls runs a command that deploys to the nodes.
func (d *day) rolls(t *testing.T, args ...string) string {
	t.Helper()
	cmd := d.command(append(args, "--config", d.config)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kaiku %q: %v\n%s", args, err, out)
	}
	t.Logf("kaiku %q\n%s", args, out)
	return string(out)
}

// status returns the status of the first node that has one, from `kaiku status` on the
// operator's machine.
func (d *day) status(t *testing.T) admin.Status {
	t.Helper()
	var all struct{ Nodes []nodeAnswer }
	if err := json.Unmarshal([]byte(d.kaiku(t, "status", "--json", "--config", d.config)), &all); err != nil {
		t.Fatal(err)
	}
	for _, a := range all.Nodes {
		if a.Status != nil {
			return *a.Status
		}
	}
	t.Fatalf("no node answers: %+v", all.Nodes)
	return admin.Status{}
}

func (d *day) firstDeploy(t *testing.T) {
	dir := filepath.Dir(d.config)
	out := d.kaiku(t, "init", "--domain", "example.com", "--origin", "https://"+dayOrigin+":8443", "--dir", dir,
		"--node", "n1=10.77.0.11@60.17,24.94", "--node", "n2=10.77.0.12@40.71,-74.01", "--node",
		"n3=10.77.0.13@1.35,103.82")
	t.Logf("init:\n%s", out)
	ca, err := os.ReadFile(filepath.Join(d.dir, "certs", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "origin-ca.pem"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
	// The origin's certificate is from the test's own authority, the fleet starts with one control
	// node, and resolvers keep answers for one second.
	d.edit(t, "      servers: [", "      ca: origin-ca.pem\n      servers: [")
	d.oneControl(t)
	d.edit(t, `"@": {}`, `"@": { ttl: 1s }`)
	d.edit(t, "www: {}", "www: { ttl: 1s }")
	d.edit(t, "\ngeodns:\n", "\nedge: { disk: 128MiB, memory: 16MiB }\n\ngeodns:\n")
	t.Logf("check: %s", d.kaiku(t, "check", d.config))
	t.Logf("deploy:\n%s", d.rolls(t, "deploy", "--accept-new-host-keys"))
	d.hits(t, "/a.css")
}

// oneControl removes the role control from all nodes except n1.
func (d *day) oneControl(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	at := strings.Index(text, "  n2:")
	if at < 0 || strings.Count(text[at:], ", control]") != 2 {
		t.Fatalf("n2 and n3 are no control nodes in\n%s", text)
	}
	text = text[:at] + strings.ReplaceAll(text[at:], ", control]", "]")
	if err := os.WriteFile(d.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (d *day) rotateToken(t *testing.T) {
	file := filepath.Join(filepath.Dir(d.config), "admin.token")
	before := d.read(t, file)
	d.rolls(t, "rotate", "admin-token")
	if after := d.read(t, file); after == before || strings.Contains(after, strings.TrimSpace(before)) {
		t.Errorf("the token is the one from before")
	}
	d.status(t)
}

func (d *day) rotateKey(t *testing.T) {
	file := filepath.Join(filepath.Dir(d.config), "fleet.key")
	before := d.read(t, file)
	d.rolls(t, "rotate", "fleet-key")
	after := d.read(t, file)
	if after == before || strings.Contains(after, strings.TrimSpace(before)) {
		t.Errorf("the key is the one from before")
	}
	for _, n := range d.nodes {
		if d.ssh(t, n, "cat /etc/kaiku/fleet.key") != after {
			t.Errorf("%s has another key", n)
		}
	}
}

func (d *day) read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (d *day) addEdge(t *testing.T) {
	d.addNode(d.top, "n4", "10.77.0.14")
	d.knowsOrigin(t, "n4")
	d.edit(t, "\nedge:", "  n4:\n    roles: [edge]\n    location: [50.11, 8.68]\n    addresses: [\"10.77.0.14\"]\n\nedge:")
	d.rolls(t, "deploy", "--accept-new-host-keys")
	d.hits(t, "/a.css")
	d.wantNodes(t, "n1", "n2", "n3", "n4")
}

// wantNodes checks which nodes the status has.
func (d *day) wantNodes(t *testing.T, names ...string) {
	t.Helper()
	have := map[string]bool{}
	for _, n := range d.status(t).Nodes {
		have[n.Node] = true
		if !n.Live || !n.Ready || n.Draining {
			t.Errorf("%+v is not ready", n)
		}
	}
	for _, n := range names {
		if !have[n] {
			t.Errorf("status does not have %s", n)
		}
		delete(have, n)
	}
	if len(have) > 0 {
		t.Errorf("status has also %v", have)
	}
}

func (d *day) growControl(t *testing.T) {
	before := d.purger.sequence()
	b := strings.Replace(d.read(t, d.config), "roles: [edge, geodns]", "roles: [edge, geodns, control]", 1) // n2
	at := strings.Index(b, "  n3:")
	b = b[:at] + strings.Replace(b[at:], "roles: [edge]", "roles: [edge, control]", 1)
	if err := os.WriteFile(d.config, []byte(b), 0o644); err != nil {
		t.Fatal(err)
	}
	out := d.rolls(t, "deploy")
	if !strings.Contains(out, "control") {
		t.Errorf("the plan does not speak of the control plane")
	}
	testwait.Until(t, "a purge after it", func() bool { return d.purger.sequence() > before })
	d.wantNodes(t, "n1", "n2", "n3", "n4")
}

func (d *day) replaceNode(t *testing.T) {
	d.kaiku(t, "drain", "n3", "--config", d.config)
	select { // until resolvers have forgotten it
	case <-time.After(6 * time.Second):
	case <-t.Context().Done():
	}
	d.addNode(d.top, "n3", "10.77.0.15")
	d.knowsOrigin(t, "n3")
	d.edit(t, `"10.77.0.13"`, `"10.77.0.15"`)
	d.rolls(t, "deploy", "--accept-new-host-keys")
	d.kaiku(t, "undrain", "n3", "--config", d.config)
	d.hits(t, "/a.css")
	testwait.Until(t, "all nodes are ready", func() bool {
		for _, n := range d.status(t).Nodes {
			if !n.Live || !n.Ready || n.Draining {
				return false
			}
		}
		return true
	})
	d.wantNodes(t, "n1", "n2", "n3", "n4")
}

func (d *day) removeNode(t *testing.T) {
	d.rolls(t, "remove", "n4", "--yes")
	if out := d.ssh(t, "n4", "ls /etc/kaiku /var/lib/kaiku /usr/local/bin/kaiku 2>/dev/null || :"); strings.TrimSpace(out) != "" {
		t.Errorf("n4 still has %s", out)
	}
	d.edit(t, "  n4:\n    roles: [edge]\n    location: [50.11, 8.68]\n    addresses: [\"10.77.0.14\"]\n", "")
	d.nodes = d.nodes[:0:0]
	d.nodes = append(d.nodes, "n1", "n2", "n3")
	d.rolls(t, "deploy")
	d.wantNodes(t, "n1", "n2", "n3")
}

func (d *day) upgrade(t *testing.T) {
	two := d.build(t, ".", "-buildid=two")
	d.rolls(t, "deploy", "--binary", two.Path)
	d.runs(t, two)
	d.bin = two.Path
}

func (d *day) wrongOrigin(t *testing.T) {
	before := d.read(t, d.config)
	d.edit(t, ":8443", ":8444")
	out, err := d.command("deploy", "--config", d.config).CombinedOutput()
	if err == nil {
		t.Errorf("a deploy with a wrong origin succeeded:\n%s", out)
	}
	t.Logf("deploy: %v\n%s", err, out)
	for _, want := range []string{"8444", "refused"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if err := os.WriteFile(d.config, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	d.rolls(t, "deploy")
	d.hits(t, "/c.bin")
}
