package deploy

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// forMachine returns the test program with the ELF header of another kind of machine.
func forMachine(t *testing.T, m elf.Machine) []byte {
	t.Helper()
	text, err := os.ReadFile(testBinary(t, "one").Path)
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint16(text[18:], uint16(m))
	return text
}

// writeAll writes files into a new folder and returns its path.
func writeAll(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpenBinaries(t *testing.T) {
	amd64, arm64 := forMachine(t, elf.EM_X86_64), forMachine(t, elf.EM_AARCH64)
	opened := func(paths ...string) (string, error) {
		list, err := OpenBinaries(paths...)
		var out []string
		for _, b := range list {
			out = append(out, b.Machine)
		}
		slices.Sort(out)
		return strings.Join(out, " "), err
	}
	for name, files := range map[string]map[string][]byte{
		"release": {"kaiku-linux-amd64": amd64, "kaiku-linux-arm64": arm64, "SHA256SUMS": nil,
			"kaiku-linux-arm64.cdx.json": nil, "kaiku_1.2.3_arm64.deb": nil, "kaiku-here": {1}},
		"archive": {"kaiku_1.2.3_amd64": amd64, "kaiku_1.2.3_linux_arm64": arm64},
		"same":    {"kaiku": amd64, "kaiku-linux-amd64": amd64, "kaiku-linux-arm64": arm64},
	} {
		if got, err := opened(writeAll(t, files)); err != nil || got != "aarch64 x86_64" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	dir := writeAll(t, map[string][]byte{"a": amd64, "b": arm64, "c": append(bytes.Clone(amd64), 1)})
	if got, err := opened(dir+"/a", dir+"/b"); err != nil || got != "aarch64 x86_64" {
		t.Errorf("two files: %q, %v", got, err)
	}
	if _, err := opened(dir+"/a", dir+"/c"); err == nil || !strings.Contains(err.Error(), "are both for x86_64") {
		t.Errorf("two for one kind of machine: %v", err)
	}
	if _, err := opened(dir); err == nil || !strings.Contains(err.Error(), "has no program") {
		t.Errorf("a folder without any: %v", err)
	}
	if _, err := opened(writeAll(t, map[string][]byte{"kaiku-linux-arm64": amd64})); err == nil ||
		!strings.Contains(err.Error(), "kaiku-linux-arm64 is a program for x86_64, but its name says aarch64") {
		t.Errorf("a name that is wrong: %v", err)
	}
	if of := buildRevision(dir + "/a"); strings.Contains(of, " ") { // the revision
		_, revision, _ := strings.Cut(of, " ")
		other := bytes.ReplaceAll(arm64, []byte("vcs.revision="+revision),
			[]byte("vcs.revision="+strings.Repeat("0", len(revision))))
		if _, err := opened(dir+"/a", writeAll(t, map[string][]byte{"kaiku": other})); err == nil ||
			!strings.Contains(err.Error(), "are of different versions") {
			t.Errorf("different versions: %v", err)
		}
	}
}

// Each node gets the program for its kind of machine.
func TestMixedFleet(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the other machine is one of arm64")
	}
	f := newTestFleet(t, "hel1", "nyc1")
	f.nodes["nyc1"].write(t, "/run/machine", "aarch64\n")
	if _, err := f.Plan(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "node nyc1: its processor is aarch64, but the binary is for x86_64") {
		t.Errorf("no program for it: %v", err)
	}
	other, err := OpenBinary(filepath.Join(writeAll(t, map[string][]byte{"kaiku": forMachine(t, elf.EM_AARCH64)}),
		"kaiku"))
	if err != nil {
		t.Fatal(err)
	}
	f.Binaries = append(f.Binaries, other)
	p, err := f.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.Nodes[0].Version != f.Binaries[0].Version() || p.Nodes[1].Version != other.Version() {
		t.Errorf("%s gets %s, %s gets %s", p.Nodes[0].Node, p.Nodes[0].Version, p.Nodes[1].Node, p.Nodes[1].Version)
	}
}
