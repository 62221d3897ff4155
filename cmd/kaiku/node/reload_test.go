package node

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
)

// TestStampIsLinear looks at 16 times the files, which may cost little more than 16 times the
// memory.
func TestStampIsLinear(t *testing.T) {
	dir := t.TempDir()
	allocated := func(files int) uint64 {
		r := reloader{&Process{config: filepath.Join(dir, "fleet.yaml")}}
		for i := range files {
			file := filepath.Join(dir, strconv.Itoa(i)+".zone")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			r.files = append(r.files, file)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r.stamp()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if few, many := allocated(250), allocated(4000); many > 2*16*few {
		t.Errorf("250 files take %d bytes, 4000 take %d", few, many)
	}
}

// TestStampSeesChanges changes, removes and adds a file that is watched.
func TestStampSeesChanges(t *testing.T) {
	dir := t.TempDir()
	config, zone := filepath.Join(dir, "fleet.yaml"), filepath.Join(dir, "zone")
	r := reloader{&Process{config: config, files: []string{zone}}}
	seen := r.stamp()
	for i, change := range []func() error{
		func() error { return os.WriteFile(config, []byte("x"), 0o600) },
		func() error { return os.WriteFile(zone, []byte("x"), 0o600) },
		func() error { return os.WriteFile(zone, []byte("xy"), 0o600) },
		func() error { return os.Remove(zone) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		now := r.stamp()
		if slices.Equal(now, seen) {
			t.Errorf("change %d is not seen", i)
		}
		if seen = now; !slices.Equal(r.stamp(), seen) {
			t.Errorf("after change %d it differs from itself", i)
		}
	}
}
