package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/capacity"
)

// A plan shows its steps, and what is for the fleet file can be read by it.
func TestPlanCommand(t *testing.T) {
	prices := filepath.Join(t.TempDir(), "prices.txt")
	if err := os.WriteFile(prices, []byte("eu 1.50 # a TB\nus 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := mustCommand(t, "plan", "--users", "1e5", "--regions", "eu=60,us=40", "--prices", prices, "--origin", "500",
		"--shield")
	for _, want := range []string{"100,000 users × 10 pages a day × 40 requests: 463/s on average",
		"eu: 38.3 TB × 1.50 = 57", "3 control nodes", "edge:\n  capacity: 119MiB\n  disk: 200GiB\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan lacks %q:\n%s", want, out)
		}
	}
	var p capacity.Plan
	if err := json.Unmarshal([]byte(mustCommand(t, "plan", "--users", "1e5", "--json")), &p); err != nil ||
		len(p.Steps) == 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, args := range [][]string{{"--users", "many"}, {"--users", "0"}, {"--users", "NaN"}, {"--pages", "10/hour"},
		{"--page", "2MB"}, {"--page", "2MB/0"}, {"--peak", "0.5"}, {"--regions", "eu=60"}, {"--regions", "eu=50,eu=50"},
		{"--regions", "=100"}, {"--line", "fast"}, {"--zipf", "0"}, {"--fresh", "101"}, {"--disk", "1KiB"}, {"--origin",
			"-1"}} {
		if _, err := command(t, append([]string{"plan"}, args...)...); exitCode(err) != 2 || err == nil ||
			!strings.Contains(err.Error(), args[0]) {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, args := range [][]string{{"--bench", "missing.json"}, {"--log", "missing.json"},
		{"--prices", "missing.txt"}} {
		if _, err := command(t, append([]string{"plan"}, args...)...); err == nil ||
			!strings.Contains(err.Error(), args[0]) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// A short run measures everything, and a plan can use what it prints.
func TestBenchSelf(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads the CPU time of another process, which works on Linux only")
	}
	out, err := exec.Command(kaikuBinary(t), "bench-self", "--time", "100ms", "--json", "--dir", t.TempDir()).Output()
	if err != nil {
		t.Fatal(err)
	}
	c, err := capacity.ParseCosts(out)
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if len(c.Hits) != 12 || c.Signed <= 0 || c.Write <= 0 || c.Read <= 0 {
		t.Errorf("%+v", c)
	}
}

// mustCommand is command for one that succeeds.
func mustCommand(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
