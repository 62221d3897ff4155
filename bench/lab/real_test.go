//go:build real && linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world/machine"
)

// TestMain also runs as the client and as process 1 of machines, which the lab starts as
// other processes.
func TestMain(m *testing.M) {
	machine.Run()
	if len(os.Args) > 1 && os.Args[1] == "client" {
		if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func testOptions(t *testing.T) options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "kaiku")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "github.com/kaiku-cdn/kaiku/cmd/kaiku")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		left, err := filepath.Glob(fmt.Sprintf("/run/netns/kaikulab-%d-*", os.Getpid()))
		dirs, bad := filepath.Glob(filepath.Join(os.TempDir(), fmt.Sprintf("%s%d-*", dirPrefix, os.Getpid())))
		if err != nil || bad != nil || len(left)+len(dirs) > 0 {
			t.Errorf("namespaces or directories are left: %v %v %v %v", left, dirs, err, bad)
		}
	})
	return options{kaiku: bin, parts: []string{partFeel, partFaults, partPurge, partDeploy}, short: true, self: self,
		client: []string{self, "client"}, log: t.Output()}
}

// TestRealLab is the short version of `make lab`. Times are only printed, because a test machine is
// busy with other things. What clients must never see fails the test.
func TestRealLab(t *testing.T) {
	r, err := measure(t.Context(), testOptions(t))
	if r != nil {
		if err := r.print(t.Output()); err != nil {
			t.Error(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range r.Goals {
		if !g.Met && (strings.Contains(g.What, "no page fails") ||
			strings.Contains(g.What, "serves none of them as they were")) {
			t.Errorf("not met: %s: %s", g.What, g.Figure)
		}
	}
	if len(r.Goals) < 10 {
		t.Errorf("%d goals only", len(r.Goals))
	}
}

// TestRealLabEndsEarly ends the lab early, as Ctrl-C does: while the fleet starts, and during
// a deploy.
func TestRealLabEndsEarly(t *testing.T) {
	for name, change := range map[string]func(*options){
		"fleet":  func(*options) {},
		"deploy": func(o *options) { o.short, o.parts = false, []string{partDeploy} },
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			change(&o)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if _, err := measure(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
}
