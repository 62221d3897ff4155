package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A zone includes files of its folder and below, also by symbolic links that stay there, and
// nothing else.
func TestIncludeStaysInside(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "zones")
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(top, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700),
			os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("outside.inc", "secret A 192.0.2.1\n")
	write("zones/below/in.inc", "in A 192.0.2.1\n")
	write("fleet.yaml", "nodes: { a: { roles: [geodns], location: [0, 0], addresses: [192.0.2.9] } }\ngeodns: { zones: [{ name: example.com, file: zones/zone }] }\n")
	for link, to := range map[string]string{"up.inc": "../outside.inc",
		"absolute.inc": filepath.Join(top, "outside.inc"), "folder": "..", "inside.inc": "below/in.inc"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for include, want := range map[string]string{
		"below/in.inc": "", "./below/../below/in.inc": "", "inside.inc": "",
		"../outside.inc":                   "outside of the zone's folder",
		"below/../../outside.inc":          "outside of the zone's folder",
		filepath.Join(top, "outside.inc"):  "outside of the zone's folder",
		filepath.Join(dir, "below/in.inc"): "outside of the zone's folder",
		"up.inc":                           "outside of the zone's folder",
		"absolute.inc":                     "outside of the zone's folder",
		"folder/outside.inc":               "outside of the zone's folder",
		"below":                            "not a file",
		"fifo":                             "not a file",
		"missing.inc":                      "no such file",
	} {
		write("zones/zone", "$TTL 60\n@ SOA ns1 h 1 2 3 4 5\n@ NS ns1\nns1 A 192.0.2.9\n$INCLUDE "+include+"\n")
		f, _, err := Load(filepath.Join(top, "fleet.yaml"))
		switch {
		case want == "" && err != nil:
			t.Errorf("$INCLUDE %s: %v", include, err)
		case want == "":
			if files := f.Watched(); len(files) != 2 || !isThere(files[1]) {
				t.Errorf("$INCLUDE %s: watched are %v", include, files)
			}
		case err == nil || !strings.Contains(err.Error(), "zones/zone:5:1: include "+include+": ") ||
			!strings.Contains(err.Error(), want):
			t.Errorf("$INCLUDE %s: error is %v, want %s", include, err, want)
		}
	}
}

// A zone may have a name of RFC 2317 section 4.
func TestNamesOfZones(t *testing.T) {
	for name, want := range map[string]bool{"0/25.2.0.192.in-addr.arpa": true, "0//25.example": true,
		"/25.example": false, "0/.example": false, "a b.example": false} {
		if isZone(name) != want {
			t.Errorf("%q is taken wrongly", name)
		}
	}
}
