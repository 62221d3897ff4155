package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
)

// listenOn is an address in place of that of the fleet file, unless it is "".
func listenOn(addr string) []string {
	if addr == "" {
		return nil
	}
	return []string{addr}
}

// writeFiles writes files, whose text is given by their names, into a folder.
func writeFiles(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// newNode makes a node of a fleet file with all of its roles.
func newNode(t testing.TB, fleetFile, name string, overrides node.Overrides, log *slog.Logger) *node.Process {
	t.Helper()
	f, _, err := config.Load(fleetFile)
	if err != nil {
		t.Fatal(err)
	}
	p, err := node.New(fleetFile, name, f.Node(name).Roles, overrides, log)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serveNode runs a node until stop is called or the test ends.
func serveNode(t testing.TB, name string, p *node.Process) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// runNode runs all roles of a node of a fleet file until stop is called or the test ends.
func runNode(t testing.TB, fleetFile, name string) (stop func()) {
	t.Helper()
	return serveNode(t, name, newNode(t, fleetFile, name, node.Overrides{}, warnings(t)))
}

// warnings logs warnings and errors to the output of a test.
func warnings(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// command runs a command of kaiku.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, &out, io.Discard)
	return out.String(), err
}
