package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// A file may have several tokens. Commands use the first one, and nodes accept all. A running node
// reloads a changed file.
func TestTokensReload(t *testing.T) {
	dir, log := t.TempDir(), &lockedBuffer{}
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("admin.token", "old\n")
	write("watch.token", "watch1\nwatch2\n")
	admin := freeport.Addr(t)
	fleetFile := write("fleet.yaml", fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://127.0.0.1:1"] } }]
edge: { http: "127.0.0.1:0", admin: %q, data: %q, disk: 128MiB, memory: 16MiB }
secrets: { admin_token: admin.token, tokens: [{ file: watch.token, scopes: [read] }] }
nodes: { hel1: { roles: [edge], location: [0, 0], addresses: [127.0.0.1] } }
`, admin, filepath.Join(dir, "data")))
	p, err := node.New(fleetFile, "hel1", []string{config.RoleEdge}, node.Overrides{},
		slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	serveNode(t, "hel1", p)
	say := 0
	with := func(text string) error {
		say++
		_, err := command(t, "status", "--admin", admin, "--token-file", write(fmt.Sprint("client", say), text))
		return err
	}
	refused := func(token string) bool {
		err := with(token)
		return err != nil && strings.Contains(err.Error(), "401")
	}
	testwait.Until(t, "the edge answers", func() bool { return with("old\n") == nil })
	for _, good := range []string{"watch1", "watch2", "# of 2026\n\nold\nanother\n"} {
		if err := with(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	if !refused("new\nold\n") {
		t.Error("a command uses another token than the first")
	}
	write("admin.token", "new\nold\n")
	testwait.Until(t, "the new token is taken", func() bool { return with("new") == nil })
	if err := with("old"); err != nil {
		t.Errorf("the old token, which is in the file: %v", err)
	}
	write("admin.token", "new\n")
	testwait.Until(t, "the old token is given up", func() bool { return refused("old") })
	if err := with("new"); err != nil {
		t.Errorf("the new token: %v", err)
	}
	// A file that can't be used changes nothing.
	f, _, err := config.Load(fleetFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"\n", "new\nnew\n", "new\nwatch1\n"} {
		write("admin.token", bad)
		if _, err := f.Tokens(admin); err == nil {
			t.Errorf("a file of tokens with %q is taken", bad)
		}
	}
	testwait.Until(t, "the node has looked at it", func() bool { return strings.Contains(log.String(), "not loaded") })
	if with("new") != nil || with("watch1") != nil {
		t.Error("the tokens of before are refused")
	}
}

// Without a token, the admin API listens only on loopback, also after a reload.
func TestTokensNeeded(t *testing.T) {
	f := &config.Fleet{}
	for admin, ok := range map[string]bool{"127.0.0.1:9080": true, "localhost:9080": true, "[::1]:9080": true,
		"0.0.0.0:9080": false, ":9080": false, "192.0.2.1:9080": false} {
		if _, err := f.Tokens(admin); (err == nil) != ok {
			t.Errorf("%s: %v", admin, err)
		}
	}
}

// lockedBuffer is a buffer that is safe for concurrent use.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write writes.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all that was written.
func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
