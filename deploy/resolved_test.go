package deploy

import (
	"errors"
	"os"
	"strings"
	"testing"
)

const stubLink, upstreamLink = "../run/systemd/resolve/stub-resolv.conf", "../run/systemd/resolve/resolv.conf"

// withResolved adds systemd-resolved to a node, configured as on Ubuntu.
func (n *testNode) withResolved(t *testing.T) {
	t.Helper()
	n.write(t, "/run/resolved", "")
	n.write(t, "/run/systemd/resolve/resolv.conf", "nameserver 192.0.2.53\n")
	n.write(t, "/run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n")
	if err := os.Symlink(stubLink, n.root+"/etc/resolv.conf"); err != nil {
		t.Fatal(err)
	}
}

func (n *testNode) resolvConf(t *testing.T) string {
	t.Helper()
	to, err := os.Readlink(n.root + "/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// A deploy makes systemd-resolved release port 53 before a name server listens on it. If that
// fails, the change is undone.
func TestResolvedGivesUpItsPort(t *testing.T) {
	f := newTestFleet(t, "ns1", "hel1")
	n, other := f.nodes["ns1"], f.nodes["hel1"]
	f.Nodes[0].Service.Listen = []string{":80", ":53"}
	for _, n := range f.nodes {
		n.withResolved(t)
	}
	setConfig(f, "broken: true\n")
	if _, _, err := f.tryDeploy(t.Context()); err == nil {
		t.Fatal("a process that ends at once is well")
	}
	if to := n.resolvConf(t); to != stubLink || n.read(stubFile) != "" {
		t.Errorf("put back: resolv.conf is %s, the setting %q", to, n.read(stubFile))
	}
	if got := strings.Count(n.read("/run/systemctl.log"), "restart systemd-resolved.service\n"); got != 2 {
		t.Errorf("systemd-resolved was restarted %d times, want one for each way:\n%s", got,
			n.read("/run/systemctl.log"))
	}

	n.write(t, "/run/systemctl.log", "")
	setConfig(f, "fine: true\n")
	p, _ := f.deploy(t)
	if !strings.Contains(planText(p), "install "+stubFile) {
		t.Errorf("the plan is\n%s", planText(p))
	}
	if to := n.resolvConf(t); to != upstreamLink || n.read(stubFile) != noStub {
		t.Errorf("resolv.conf is %s, the setting %q", to, n.read(stubFile))
	}
	log := n.read("/run/systemctl.log")
	if before, _, found := strings.Cut(log, "start kaiku.socket"); !found ||
		!strings.Contains(before, "restart systemd-resolved.service") {
		t.Errorf("systemctl was told\n%s", log)
	}
	if to := other.resolvConf(t); to != stubLink || strings.Contains(other.read("/run/systemctl.log"),
		"restart systemd-resolved") || other.read(stubFile) != "" {
		t.Errorf("a node that is no name server: resolv.conf is %s", to)
	}
	if p, _ := f.deploy(t); !p.Nothing() {
		t.Errorf("a second deploy has something to do:\n%s", planText(p))
	}

	// The node is no name server any more, so systemd-resolved may listen again.
	f.Nodes[0].Service.Listen = []string{":80"}
	n.write(t, "/run/systemctl.log", "")
	f.deploy(t)
	if _, err := os.Stat(n.root + stubFile); !errors.Is(err, os.ErrNotExist) ||
		!strings.Contains(n.read("/run/systemctl.log"), "restart systemd-resolved.service") {
		t.Errorf("the setting is left: %v", err)
	}
}

// Without systemd-resolved, nothing of it is changed.
func TestNoResolved(t *testing.T) {
	f := newTestFleet(t, "ns1")
	n := f.nodes["ns1"]
	f.Nodes[0].Service.Listen = []string{"0.0.0.0:53"}
	n.write(t, "/etc/resolv.conf", "nameserver 192.0.2.1\n")
	f.deploy(t)
	if n.read("/etc/resolv.conf") != "nameserver 192.0.2.1\n" || strings.Contains(n.read("/run/systemctl.log"),
		"restart systemd-resolved") {
		t.Errorf("resolv.conf is %q", n.read("/etc/resolv.conf"))
	}
}

func TestNeedsPort53(t *testing.T) {
	for listen, want := range map[string]bool{":53": true, "0.0.0.0:53": true, "[::]:53": true, "127.0.0.53:53": true,
		"192.0.2.1:53": false, ":5353": false, ":80": false} {
		if got := (Service{Listen: []string{":443", listen}}).needsPort53(); got != want {
			t.Errorf("%s: %v", listen, got)
		}
	}
}
