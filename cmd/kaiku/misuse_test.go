package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

func TestOtherCommandsRefuseTheSameErrors(t *testing.T) {
	file := contract(t, "shield: nyc1", "shield: nope")
	_, _, want := config.Load(file)
	for _, args := range [][]string{
		{"edge", "--config", file, "--node", "hel1"},
		{"geodns", "--config", file, "--node", "fra1"},
		{"serve", "--config", file, "--node", "nyc1"},
	} {
		err := run(context.Background(), args, new(bytes.Buffer), new(bytes.Buffer))
		if err == nil || err.Error() != want.Error() {
			t.Errorf("%s: got %v, want %v", args[0], err, want)
		}
	}
}

func TestExitCodesOfMisuse(t *testing.T) {
	for _, args := range [][]string{
		{"nonsense"}, {"edge"}, {"edge", "--origin", "x", "--config", "y"}, {"edge", "--origin", "ftp://x"}, {"edge",
			"--origin", "http://x", "--admin", "0.0.0.0:0", "--data", t.TempDir()}, {"edge", "--disk", "7"}, {"edge",
			"--origin", "http://x", "--host", "a/b"},
		{"edge", "--config", "config/testdata/fleet.yaml", "--node", "hel1", "--host", "client"},
		{"purge"}, {"check", "more"}, {"check", "config/testdata/fleet.yaml", "--config", "other.yaml"}, {"check",
			"config/testdata/fleet.yaml", "more"}, {"edge", "--what"},
		{"deploy", "more"}, {"deploy", "config/testdata/fleet.yaml", "--config", "other.yaml"}, {"serve", "--config",
			"config/testdata/fleet.yaml", "--node", "none"},
	} {
		err := run(t.Context(), args, new(bytes.Buffer), new(bytes.Buffer))
		if err == nil || exitCode(err) != 2 {
			t.Errorf("%v: got %v, want a usage error", args, err)
		}
	}
}

// contract writes the fleet file and zone of package config's tests to a folder, with one text of
// the fleet file replaced. It returns the fleet file's path.
func contract(t *testing.T, from, to string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"fleet.yaml", "example.com.zone"} {
		text := strings.ReplaceAll(readFile(t, "config/testdata", name), from, to)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "fleet.yaml")
}
