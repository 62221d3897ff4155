package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here")
	}
	n := Node{Name: "hel1", Service: Service{Listen: []string{":80", "192.0.2.1:443"}, Memory: 1 << 30,
		Writable: []string{"/srv/cache", "/srv/my cache"}}}
	files, err := n.allFiles()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var units []string
	for _, f := range files {
		if strings.HasPrefix(f.Path, "/etc/systemd/") {
			// systemd-analyze verify requires an existing program.
			text := strings.ReplaceAll(string(f.Data), "/usr/local/bin/kaiku", "/bin/true")
			units = append(units, filepath.Join(dir, filepath.Base(f.Path)))
			if err := os.WriteFile(units[len(units)-1], []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command(analyze, append([]string{"verify", "--man=no"}, units...)...)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), dir) {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err := exec.Command(analyze, "security", "--offline=yes", "--no-pager",
		filepath.Join(dir, "kaiku.service")).CombinedOutput()
	score := regexp.MustCompile(`Overall exposure level for kaiku.service: ([0-9.]+)`).FindSubmatch(out)
	if err != nil || score == nil {
		t.Fatalf("security: %v\n%s", err, out)
	}
	if v, err := strconv.ParseFloat(string(score[1]), 64); err != nil || v > 2.0 {
		t.Errorf("exposure is %s, want 2.0 at most\n%s", score[1], out)
	}
	t.Logf("exposure level %s", score[1])
}

// The process writes its logs to folders that systemd or a deploy creates, because it may not
// create any itself.
func TestWritableFolders(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	n.write(t, "/srv/taken/file", "of somebody else")
	f.Nodes[0].Service.Writable = []string{"/srv/my cache", "/srv/taken"}
	f.deploy(t)
	if unit := n.read(serviceUnit); !strings.Contains(unit, "\nLogsDirectory=kaiku\n") {
		t.Errorf("the unit has no folder for logs:\n%s", unit)
	}
	if info, err := os.Stat(n.root + "/srv/my cache"); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the folder: %v, %v", info, err)
	}
	if owners := n.read("/run/chown.log"); !strings.Contains(owners, "kaiku: "+n.root+"/srv/my cache\n") ||
		strings.Contains(owners, "taken") {
		t.Errorf("owners:\n%s", owners)
	}
	f.Nodes[0].Service.Writable = []string{"/srv/a\nb"}
	if _, err := f.Plan(t.Context()); err == nil {
		t.Error("a folder of two lines is taken")
	}
}

// No value in a unit can add a line to it.
func TestUnitsAreRefused(t *testing.T) {
	const evil = "x\nExecStartPre=/bin/sh"
	for what, n := range map[string]Node{"name": {Name: evil},
		"listener": {Name: "a", Service: Service{Listen: []string{evil}}}, "folder": {Name: "a",
			Service: Service{Writable: []string{evil}}},
		"program": {Name: "a", Service: Service{Program: evil}}, "environment": {Name: "a",
			Service: Service{Environment: evil}}} {
		if _, err := n.Units(); err == nil {
			t.Errorf("a %s of two lines is taken", what)
		}
	}
}

// Complaints of sysctl are not a failure and are not part of the error of one.
func TestSysctlComplaints(t *testing.T) {
	f := newTestFleet(t, "hel1")
	setConfig(f, "broken: true\n")
	_, _, err := f.tryDeploy(t.Context())
	if err == nil || !strings.Contains(err.Error(), "Job for kaiku.service failed") {
		t.Errorf("a process that ends at once: %v", err)
	}
	if err != nil && strings.Contains(err.Error()+f.out.String(), "sysctl") {
		t.Errorf("%v\n%s", err, f.out.String())
	}
	setConfig(f, "fine: true\n")
	f.deploy(t)
	if strings.Contains(f.out.String(), "sysctl") ||
		!strings.Contains(f.nodes["hel1"].read("/etc/sysctl.d/60-kaiku.conf"), "somaxconn") {
		t.Error(f.out.String())
	}
}
