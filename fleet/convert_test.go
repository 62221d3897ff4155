package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// A conversion that is interrupted at any step is done again by the next start, with nothing lost.
func TestConversionIsInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := makeControl(t, dir, 2)[0]
	peers, others := c.Peers, c.Others
	c.Peers, c.Others = nil, nil
	c.start(t)
	admin := dial(t, []*control{c}, "deploy", RoleAdmin)
	vault := dial(t, []*control{c}, "hel1", RoleEdge)
	untilReady(t, vaultOf(t, vault))
	for i := range 10 {
		appendPurge(t, admin, i)
	}
	_, err := vaultOf(t, vault).Save(t.Context(), "a", []byte("a certificate"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Drain(t.Context(), "nyc1", true); err != nil {
		t.Fatal(err)
	}
	at, _, err := admin.position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.stop()

	// As the disk is at each step, so it is after a kill there.
	images := map[string]string{}
	var steps []string
	c.Peers, c.Others = peers, others
	c.onStep = func(step string) {
		images[step] = filepath.Join(dir, "cut "+step)
		steps = append(steps, step)
		if err := os.CopyFS(images[step], os.DirFS(c.Dir)); err != nil {
			t.Error(err)
		}
	}
	c.start(t)
	same := func(what string) {
		t.Helper()
		testwait.Until(t, what+": the log is there", func() bool {
			now, first, err := admin.position(t.Context())
			return err == nil && now == at && first == 1
		})
		v := vaultOf(t, vault)
		testwait.Until(t, what+": the vault is there", func() bool {
			value, _, _, err := v.Load(t.Context(), "a")
			return err == nil && string(value) == "a certificate"
		})
	}
	same("at once")
	if seq := appendPurge(t, admin, 100); seq != 11 {
		t.Errorf("the next purge is %d", seq)
	}
	c.stop()
	c.onStep = nil
	if len(steps) < 8 || steps[len(steps)-1] != "committed" {
		t.Fatalf("the steps were %q", steps)
	}
	var cut []*control // at the same time, as each has to elect itself
	for _, step := range steps {
		again := makeControl(t, dir, 2)[0]
		again.Dir = images[step]
		again.start(t)
		cut = append(cut, again)
	}
	for i, step := range steps {
		admin, vault = dial(t, cut[i:i+1], "deploy", RoleAdmin), dial(t, cut[i:i+1], "hel1", RoleEdge)
		same("cut when " + step)
		if seq := appendPurge(t, admin, 200); seq != 11 {
			t.Errorf("cut when %s: the next purge is %d", step, seq)
		}
		cut[i].stop()
		left, err := filepath.Glob(filepath.Join(images[step], "*"))
		if err != nil || len(left) != 1 {
			t.Errorf("cut when %s: left are %q: %v", step, left, err)
		}
	}
}

// A folder of the release before, which knew no groups of one, and one of three nodes of that
// release.
func TestFoldersOfBefore(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"one": 1, "three": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := makeControl(t, t.TempDir(), 3)
			var servers []*server.Server
			for _, c := range all[:n] {
				servers = append(servers, startBefore(t, c, all[:n]))
			}
			admin := dial(t, all[:n], "c1", RoleControl)
			admin.mu.Lock()
			admin.replicas = n // it makes what is not there
			admin.mu.Unlock()
			for i := range 10 {
				appendPurge(t, admin, i)
			}
			at, _, err := admin.position(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range all {
				if i < n {
					servers[i].Shutdown()
					servers[i].WaitForShutdown()
				}
				c.start(t)
			}
			edge := keep(t, dial(t, all, "hel1", RoleEdge), at)
			membersAre(t, dial(t, all, "deploy", RoleAdmin), all...)
			if seq := appendPurge(t, admin, 10); seq != 11 {
				t.Errorf("the next purge is %d", seq)
			}
			testwait.Until(t, "it has come",
				func() bool { now := edge.Applied(); return now.Log == at.Log && now.Seq == 11 })
			if len(edge.lost) > 0 {
				t.Errorf("the edge took all as stale: %v", edge.lost)
			}
		})
	}
}

// startBefore starts a control server as the release before did.
func startBefore(t *testing.T, c *control, nodes []*control) *server.Server {
	t.Helper()
	host, port, err := hostPort(c.Addr)
	if err != nil {
		t.Fatal(err)
	}
	opts := &server.Options{ServerName: c.Node, Host: host, Port: port, NoSigs: true, TLSConfig: withRole(c.TLS, ""),
		TLSVerify: true, TLSTimeout: 5, TLSHandshakeFirst: true,
		CustomClientAuthentication: anybody{}, JetStream: true, StoreDir: c.Dir, SyncAlways: true, MaxPayload: maxPurge,
		DisableJetStreamBanner: true}
	if len(nodes) > 1 {
		_, port, err := hostPort(c.Cluster)
		if err != nil {
			t.Fatal(err)
		}
		opts.Cluster = server.ClusterOpts{Name: "kaiku", Host: host, Port: port,
			TLSConfig: withRole(c.TLS, RoleControl), TLSTimeout: 5, PoolSize: 1}
		for _, o := range nodes {
			if o != c {
				u := o.self()
				opts.Routes = append(opts.Routes, u)
			}
		}
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	t.Cleanup(s.Shutdown)
	return s
}

// anybody lets everybody in.
type anybody struct{}

// Check takes a client.
func (anybody) Check(c server.ClientAuthentication) bool {
	c.RegisterUser(&server.User{Username: "anybody"})
	return true
}

func TestFolderIsDamaged(t *testing.T) {
	c := makeControl(t, t.TempDir(), 2)[0]
	if err := os.MkdirAll(metaOf(folder(c.Dir).store()), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(metaOf(folder(c.Dir).store()), groupFile), []byte("../other\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "is not the name of a group") {
		t.Errorf("it starts: %v", err)
	}
}
