package node

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// TestStampIsLinear watches 16 times as many files, which must take little more than 16 times the
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

// TestStampSeesChanges changes, removes and adds a watched file.
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

// TestFixedKeys changes every setting that a node reads only when it starts. fixedBy must show each
// change, because otherwise a change would log no warning.
func TestFixedKeys(t *testing.T) {
	fixed := func(edge string) map[string]string {
		file := filepath.Join(t.TempDir(), "fleet.yaml")
		text := "sites: [{ name: www, hosts: [www.example.com], origin: { servers: [\"http://192.0.2.1\"] } }]\n" +
			"nodes: { hel1: { roles: [edge], addresses: [192.0.2.2], location: [60, 25] } }\n" +
			"tls: { acme: { email: ops@example.com } }\n" + edge
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, _, err := config.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		return fixedBy(f, "hel1")
	}
	before := fixed("edge: { hit_lane: true }\n")
	after := fixed("edge: { http: \":81\", https: \":444\", admin: \"127.0.0.1:82\", peer: \":7443\", data: /tmp/other, disk: 2GiB, " +
		"memory: 65MiB, max_disconnected: 3m, capacity: 3MiB, purge_from: [192.0.2.0/24], max_connections: 1000, " +
		"max_connections_per_client: 99, drain_timeout: 7s, access_log: { file: /tmp/log }, http2: go, hit_lane: false }\n")
	edge := reflect.TypeFor[config.Edge]()
	for i := range edge.NumField() {
		key := "edge." + edge.Field(i).Tag.Get("yaml")
		if was, ok := before[key]; !ok || was == after[key] {
			t.Errorf("%s is %q before and %q after", key, was, after[key])
		}
	}
	if same := fixed("edge: { hit_lane: true }\n"); !maps.Equal(before, same) {
		t.Errorf("nothing changed, but %v became %v", before, same)
	}
}
