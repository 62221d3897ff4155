//go:build real && linux

package promise

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestRealPromise is the short version of `bin/lab -parts promise`. A violation fails it.
func TestRealPromise(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "kaiku")
	cmd := exec.Command("go", "build", "-o", bin, "github.com/kaiku-cdn/kaiku/cmd/kaiku")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	all, err := Run(t.Context(), Options{Kaiku: bin, Short: true, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if n := r.Violations(); n > 0 {
			t.Errorf("%s: %d violations", r.Title, n)
		}
		if r.Reads == 0 || r.Purges == 0 || r.Applied == 0 {
			t.Errorf("%s: nothing was tried: %d reads, %d purges, %d applied", r.Title, r.Reads, r.Purges, r.Applied)
		}
	}
	left, err := filepath.Glob(fmt.Sprintf("/run/netns/kaikulab-%d-*", os.Getpid()))
	dirs, bad := filepath.Glob(filepath.Join(os.TempDir(), fmt.Sprintf("%s%d-*", dirPrefix, os.Getpid())))
	if err != nil || bad != nil || len(left)+len(dirs) > 0 {
		t.Errorf("namespaces or folders are left: %v %v %v %v", left, dirs, err, bad)
	}
}
