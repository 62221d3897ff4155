package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// Every flag for a node refuses an unknown one, and lists the known ones.
func TestUnknownNode(t *testing.T) {
	config := writeDeployed(t)
	for _, args := range [][]string{
		{"deploy", "--only"},
		{"serve", "--node"},
		{"edge", "--node"},
		{"geodns", "--node"},
		{"control", "--node"},
		{"health", "--node"},
		{"units", "--node"},
		{"credential", "--out", filepath.Join(t.TempDir(), "x"), "--node"},
	} {
		for _, name := range []string{"nosuch", ""} {
			if name == "" && (args[0] == "deploy" || args[0] == "health") {
				continue // it means all nodes, or this machine
			}
			_, err := command(t, append(args, name, "--config", config)...)
			if err == nil || exitCode(err) != 2 || !strings.Contains(err.Error(), "it has hel1, ns1") {
				t.Errorf("%q %q: %v", args, name, err)
			}
		}
	}
}
