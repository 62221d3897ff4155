package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// operated is a fleet that an operator reaches over SSH. Node c1 has the control plane; hel1 and
// nyc1 are edges. Two machines are lost: down refuses connections, and dumb accepts them but sends
// nothing.
type operated struct {
	dir, config string
	admin       map[string]string // by node
}

func newOperated(t *testing.T) *operated {
	t.Helper()
	key := newOperator(t)
	o := newCountingOrigin(t)
	dumb, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dumb.Close() })
	f := &operated{dir: t.TempDir(), admin: map[string]string{"c1": freeport.Addr(t), "hel1": freeport.Addr(t),
		"nyc1": freeport.Addr(t)}}
	text := fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["%s"] } }]
edge: { disk: 128MiB, memory: 16MiB }
secrets: { fleet_key: fleet.key, admin_token: /etc/kaiku/admin.token }
nodes:
  down: { roles: [edge], location: [0, 0], addresses: [127.0.0.8], ssh: "root@%s" }
  dumb: { roles: [edge], location: [0, 0], addresses: [127.0.0.9], ssh: "root@%s" }
  c1: { roles: [control], addresses: [127.0.0.1], ssh: "root@%s", admin: %q, control: { listen: %q, data: %q } }
`, o.URL, freeport.Addr(t), dumb.Addr(), newSSHServer(t, key), f.admin["c1"], freeport.Addr(t), filepath.Join(f.dir, "c1"))
	for i, name := range []string{"hel1", "nyc1"} {
		text += fmt.Sprintf("  %s: { roles: [edge], location: [0, 0], addresses: [127.0.0.%d], ssh: \"root@%s\", edge: { http: %q, admin: %q, data: %q } }\n",
			name, 2+i, newSSHServer(t, key), freeport.Addr(t), f.admin[name], filepath.Join(f.dir, name))
	}
	f.config = f.write(t, "fleet.yaml", text)
	f.write(t, "admin.token", "secret\n")
	f.write(t, "wrong.token", "wrong\n")
	f.write(t, "fleet.key", "0123456789abcdef0123456789abcdef0123\n")
	f.start(t)
	return f
}

func (f *operated) write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(f.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// start runs the nodes. They get a token file of their own, because this machine does not have the
// one in /etc/kaiku.
func (f *operated) start(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(f.config)
	if err != nil {
		t.Fatal(err)
	}
	own := f.write(t, "nodes.yaml", strings.ReplaceAll(string(text), config.NodeDir+"/", ""))
	for _, name := range []string{"c1", "hel1", "nyc1"} {
		runNode(t, own, name)
	}
	testwait.Until(t, "all nodes are ready", func() bool {
		out, err := f.run(t, "status", "--config", own, "--admin", f.admin["hel1"])
		return err == nil && strings.Count(out, "  ready  ") == 3
	})
}

// run runs a command on a machine that is not a node.
func (f *operated) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return f.runOn(t, filepath.Join(f.dir, "none"), args...)
}

// runOn runs a command on a machine with etc in place of /etc/kaiku. It returns everything that the
// command prints.
func (f *operated) runOn(t *testing.T, etc string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := runOn(t.Context(), etc, args, &out, &out)
	return out.String(), err
}

// Everyday commands reach the fleet from the operator's machine, through any node that is up.
func TestAdminOverSSH(t *testing.T) {
	f := newOperated(t)
	text, err := os.ReadFile(f.config)
	if err != nil {
		t.Fatal(err)
	}
	// without dumb where all nodes are queried, because the command would wait for it
	fewer := f.write(t, "fewer.yaml", strings.Replace(string(text), "  dumb:", "  #", 1))
	for _, c := range []struct {
		args  string
		says  []string // in this order
		fails string
	}{
		{"purge --all --wait --limit 30ms", []string{"purged, sequence 1"}, "not applied within 30ms by "},
		{"purge --verbose --tag x", []string{"down can't be queried: ", "c1 answers, through root@127.0.0.1:",
			"purged, sequence 2"}, ""},
		{"purge https://other.example/", nil,
			"purge: node c1: 404 Not Found: no site has the host other.example: the hosts are www.example.com"},
		{"drain nosuch", nil, `has no node "nosuch": it has down, dumb, c1, hel1, nyc1`},
		{"drain hel1", []string{"hel1: drain done"}, ""},
		{"status", []string{"3 of 4 nodes ready",
			"down: it is offline: it sends no reports to the control plane, and can't be queried: ",
			"connection refused", "hel1: it is drained: name servers send it no clients until you run kaiku undrain hel1", "\nhel1 ", "draining", "\nedge ",
			"\nhel1 ", "\nnyc1 ", "\nall "}, ""},
		{"status --node nyc1", []string{"\nnyc1 ", "\nedge ", "\nnyc1 ", "\norigin "}, ""},
		{"undrain hel1", []string{"hel1: undrain done"}, ""},
		{"warm http://www.example.com/a", []string{"down: it can't be queried", "hel1: requested 1, stored 1",
			"nyc1: requested 1, stored 1"}, "warm: 1 of 3 edges can't be queried"},
		{"warm --node nyc1 http://www.example.com/b", []string{"nyc1: requested 1, stored 1"}, ""},
		{"explain http http://www.example.com/b --node nyc1", []string{"edge nyc1:", "http://www.example.com/b"}, ""},
		{"explain http http://www.example.com/b", []string{"edge hel1:", "not stored"}, ""},
		{"explain http http://www.example.com/b --node c1", nil,
			"c1 is not an edge: give one of down, dumb, hel1, nyc1"},
		{"explain http http://www.example.com/b --node nosuch", nil,
			`has no node "nosuch": it has down, dumb, c1, hel1, nyc1`},
		{"status --node down", nil, "status: node down: "},
	} {
		config := f.config
		if strings.HasPrefix(c.args, "status") || strings.HasPrefix(c.args, "warm") {
			config = fewer
		}
		out, err := f.run(t, append(strings.Fields(c.args), "--config", config)...)
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: error %v, want %q", c.args, err, c.fails)
		}
		rest := out
		for _, want := range c.says {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Errorf("%s: no %q where it is due:\n%s", c.args, want, out)
				break
			}
			rest = after
		}
		if strings.Contains(c.args, "purge") && strings.Contains(out, "dumb can't be queried") {
			t.Errorf("%s: it waited for a machine that says nothing:\n%s", c.args, out)
		}
	}
	out, err := f.run(t, "status", "--json", "--config", fewer)
	var st struct{ Nodes []nodeAnswer }
	if err := errors.Join(err, json.Unmarshal([]byte(out), &st)); err != nil || len(st.Nodes) != 4 ||
		st.Nodes[0].Error == "" || st.Nodes[3].Status == nil {
		t.Errorf("JSON: %v\n%s", err, out)
	}
}

// A refused token ends the command at once. The error tells which token it was.
func TestAdminRefusesToken(t *testing.T) {
	f := newOperated(t)
	wrong := filepath.Join(f.dir, "wrong.token")
	for _, c := range []struct{ args, fails string }{
		{"purge --all --config " + f.config + " --token-file " + wrong,
			"purge: node c1: 401 Unauthorized: it refuses the token in " + wrong + ": "},
		{"status --config " + f.config + " --node hel1 --token-file " + wrong,
			"status: node hel1: 401 Unauthorized: it refuses the token in " + wrong + ": "},
		{"status --admin " + f.admin["hel1"], "status: 401 Unauthorized: it needs a token, and none was given: "},
		{"status --admin " + f.admin["hel1"] + " --token-file /nosuch", "status: read the admin token: open /nosuch: "},
		{"purge --all --admin " + f.admin["hel1"] + " --token-file " + wrong,
			"purge: 401 Unauthorized: it refuses the token in " + wrong + ": "},
	} {
		if out, err := f.run(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
	}
	// With --admin, --config still selects the fleet file's token.
	if out, err := f.run(t, "status", "--admin", f.admin["hel1"], "--config", f.config); err != nil {
		t.Errorf("--admin and --config: %v\n%s", err, out)
	}
	if err := os.Remove(filepath.Join(f.dir, "admin.token")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.run(t, "purge", "--all", "--config", f.config); err == nil ||
		!strings.Contains(err.Error(), "it needs a token, and /etc/kaiku/admin.token doesn't exist") {
		t.Errorf("without the file: %v", err)
	}
}

// On a node, commands find the fleet file, the node's admin listener and its token.
func TestAdminOnNode(t *testing.T) {
	f := newOperated(t)
	etc := t.TempDir()
	text, err := os.ReadFile(filepath.Join(f.dir, "nodes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, etc, map[string]string{"fleet.yaml": string(text), "admin.token": "secret\n",
		"fleet.key": readFile(t, f.dir, "fleet.key"), "node": "# a comment\nKAIKU_NODE=nyc1\n"})
	t.Setenv(nodeVariable, "")
	for _, c := range []struct{ args, says, fails string }{
		{"status", "\nedge ", ""},
		{"status --config " + filepath.Join(etc, "fleet.yaml"), "\nnyc1 ", ""},
		{"purge --tag x --wait", "nyc1  applied after", "not applied within 10s by down, dumb"},
		{"warm http://www.example.com/n", "nyc1: requested 1, stored 1", ""},
		{"explain http http://www.example.com/n", "edge nyc1:", ""},
		{"drain nyc1", "drain done", ""},
		{"undrain nyc1", "undrain done", ""},
		{"health", "node nyc1 is healthy", ""},
		{"status --node hel1", "", "--node hel1: this machine is nyc1, and can't connect to other nodes"},
	} {
		out, err := f.runOn(t, etc, strings.Fields(c.args)...)
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) ||
			!strings.Contains(out, c.says) {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
	}
	// The environment variable has precedence, as in a container.
	t.Setenv(nodeVariable, "hel1")
	if out, err := f.runOn(t, etc, "explain", "http", "http://www.example.com/n"); err != nil ||
		!strings.Contains(out, "edge hel1:") {
		t.Errorf("KAIKU_NODE=hel1: %v\n%s", err, out)
	}
	t.Setenv(nodeVariable, "nosuch")
	if _, err := f.runOn(t, etc, "status"); err == nil ||
		!strings.Contains(err.Error(), `has no node "nosuch": it has `) {
		t.Errorf("KAIKU_NODE=nosuch: %v", err)
	}
	// Without a name, the addresses decide: here they are those of c1.
	t.Setenv(nodeVariable, "")
	if err := os.Remove(filepath.Join(etc, "node")); err != nil {
		t.Fatal(err)
	}
	if out, err := f.runOn(t, etc, "drain", "nyc1", "--verbose"); err != nil || !strings.Contains(out, "c1 answers") {
		t.Errorf("the address of c1: %v\n%s", err, out)
	}
	none := strings.Replace(string(text), "[127.0.0.1]", "[192.0.2.1]", 1)
	if err := os.WriteFile(filepath.Join(etc, "fleet.yaml"), []byte(none), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.runOn(t, etc, "status"); err == nil ||
		!strings.Contains(err.Error(), "write KAIKU_NODE=NAME into "+filepath.Join(etc, "node")) {
		t.Errorf("addresses of no node: %v", err)
	}
}

// If a node's files can't be read, the error says what helps.
func TestNeedsRoot(t *testing.T) {
	if err := needsRoot(&fs.PathError{Op: "open", Path: "/etc/kaiku/admin.token",
		Err: fs.ErrPermission}); !strings.Contains(err.Error(),
		"admin.token: permission denied: run this as root, with sudo") {
		t.Error(err)
	}
}

// Without a fleet file, commands use the default address of an edge's admin listener.
func TestAdminDefault(t *testing.T) {
	f := &operated{dir: t.TempDir()}
	for _, c := range []struct{ args, fails string }{
		{"status --admin 127.0.0.1:1",
			"status: connect to http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused: is an edge running there? For a fleet, give --config fleet.yaml; for another admin listener, --admin URL"},
		{"status --admin ftp://x", "--admin ftp://x: want http://HOST:PORT"},
		{"status --admin ::", "--admin ::: want http://HOST:PORT"},
		{"status --node hel1", "--node needs a fleet file: give --config fleet.yaml"},
		{"purge --all --config nosuch.yaml", "read the fleet: open nosuch.yaml: no such file or directory"},
	} {
		if out, err := f.run(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
	}
}
