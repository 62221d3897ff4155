//go:build real

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A control node and two edges run as processes of their own. One edge is killed, and a purge that
// waits for all edges says so.
func TestRealFleetPurge(t *testing.T) {
	bin := kaikuBinary(t)
	_, log := nginxOrigin(t, "127.0.0.1:18002")
	dir := t.TempDir()
	fleet := fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://127.0.0.1:18002"] } }]
edge: { disk: 128MiB }
secrets: { fleet_key: fleet.key }
nodes:
  c1: { roles: [control], addresses: [127.0.0.41], control: { listen: "127.0.0.41:14222", data: %[1]s/c1 } }
  hel1: { roles: [edge], location: [60, 25], addresses: [127.0.0.42], edge: { http: "127.0.0.42:18082", admin: "127.0.0.1:19182", data: %[1]s/hel1 } }
  nyc1: { roles: [edge], location: [41, -74], addresses: [127.0.0.43], edge: { http: "127.0.0.43:18082", admin: "127.0.0.1:19183", data: %[1]s/nyc1 } }
`, dir)
	writeFiles(t, dir, map[string]string{"fleet.yaml": fleet, "fleet.key": strings.Repeat("secret", 8)})
	config := filepath.Join(dir, "fleet.yaml")
	startProcess(t, bin, "control", "--config", config, "--node", "c1")
	startProcess(t, bin, "edge", "--config", config, "--node", "hel1")
	nyc := startProcess(t, bin, "edge", "--config", config, "--node", "nyc1")
	kaiku := func(args ...string) (string, int) {
		out, err := exec.Command(bin, append(args, "--admin", "127.0.0.1:19182")...).CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return string(out), exit.ExitCode()
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(out), 0
	}
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		out, _ := kaiku("status")
		if strings.Contains(out, "hel1") && strings.Contains(out, "nyc1") && strings.Count(out, "  ready  ") == 2 {
			break
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the fleet does not come together:\n%s", out)
		}
	}
	ask := func(addr string) string {
		head, _ := curl(t, "--connect-to", "::"+addr+":18082", "http://www.example.com/a.css")
		return head
	}
	for _, want := range []string{"fwd=uri-miss", "; hit"} {
		for _, addr := range []string{"127.0.0.42", "127.0.0.43"} {
			wantHead(t, addr, ask(addr), want)
		}
	}
	out, code := kaiku("purge", "--all", "--wait")
	if code != 0 || !regexp.MustCompile(`(?s)hel1  applied after \d+ ms.*nyc1  applied after \d+ ms`).MatchString(out) {
		t.Errorf("purge: exit code %d\n%s", code, out)
	}
	wantHead(t, "nyc1 after the purge", ask("127.0.0.43"), "fwd=uri-miss")
	if n := asked(t, log, "/a.css"); n != 3 {
		t.Errorf("the origin was asked %d times", n)
	}

	_ = nyc.end(t, syscall.SIGKILL)
	out, code = kaiku("purge", "--all", "--wait", "--limit", "3s")
	if code != 1 || !strings.Contains(out, "hel1  applied after") ||
		!strings.Contains(out, "not applied within 3s by nyc1") {
		t.Errorf("purge without nyc1: exit code %d\n%s", code, out)
	}
	// The edge comes back with a store from before the purge.
	startProcess(t, bin, "edge", "--config", config, "--node", "nyc1")
	waitFor(t, "127.0.0.43:18082")
	wantHead(t, "nyc1 after it was away", ask("127.0.0.43"), "fwd=(uri-miss|stale)")
}
