package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/nats-io/nats-server/v2/server"
)

// acks are what a stream of purges was answered.
type acks struct {
	stop func()
	mu   sync.Mutex
	seqs []uint64 // by purge
}

// purgeOn makes one purge after the other, each again until it is acknowledged.
func purgeOn(t *testing.T, c *Client) *acks {
	t.Helper()
	a := &acks{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ctx.Err() == nil; n++ {
			for {
				seq, err := c.Append(context.Background(), fmt.Sprintf("%s-%d", c.Node, n), "", n)
				if err == nil {
					a.mu.Lock()
					a.seqs = append(a.seqs, seq)
					a.mu.Unlock()
					break
				}
				if ctx.Err() != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	a.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(a.stop)
	return a
}

func (a *acks) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seqs)
}

// more waits until some more are acknowledged.
func (a *acks) more(t *testing.T) {
	t.Helper()
	n := a.count()
	until(t, "purges are acknowledged", func() bool { return a.count() > n+5 })
}

// keeper is an edge that notes what it applies, by sequence.
type keeper struct {
	*Follower
	mu      sync.Mutex
	applied map[uint64]string
	last    uint64
	lost    []Position
	wrong   []string
}

// keep starts an edge that goes on from a position.
func keep(t *testing.T, c *Client, from Position) *keeper {
	t.Helper()
	k := &keeper{applied: map[uint64]string{}, last: from.Seq}
	k.Follower = &Follower{Client: c, Start: from,
		Apply: func(purges []Logged, after Position) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			if after.Seq != k.last+uint64(len(purges)) {
				k.wrong = append(k.wrong, fmt.Sprintf("after %d come %d purges, up to %d", k.last, len(purges),
					after.Seq))
			}
			for i, p := range purges {
				k.applied[after.Seq-uint64(len(purges)-1-i)] = string(p.Purge)
			}
			k.last = after.Seq
			return nil
		},
		Lost: func(now Position) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.lost, k.last = append(k.lost, now), now.Seq
			return nil
		}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	until(t, "the edge is in touch", k.InTouch)
	k.mu.Lock()
	k.lost = nil // of the first time
	k.mu.Unlock()
	return k
}

// check stops the purges, and makes sure that each that was acknowledged was applied by each edge,
// once, in the order of the log, and that no edge took everything as stale.
func (a *acks) check(t *testing.T, edges ...*keeper) {
	t.Helper()
	a.stop()
	if !slices.IsSorted(a.seqs) || len(slices.Compact(slices.Clone(a.seqs))) != len(a.seqs) {
		t.Errorf("sequences of the acknowledged are not increasing: %v", a.seqs)
	}
	for i, e := range edges {
		until(t, "an edge has all", func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return len(a.seqs) == 0 || e.last >= a.seqs[len(a.seqs)-1]
		})
		e.mu.Lock()
		for n, seq := range a.seqs {
			if got := e.applied[seq]; got != fmt.Sprint(n) {
				t.Errorf("edge %d: purge %d was acknowledged as %d, where it has %q", i, n, seq, got)
			}
		}
		if len(e.lost) > 0 || len(e.wrong) > 0 {
			t.Errorf("edge %d took everything as stale at %v; %v", i, e.lost, e.wrong)
		}
		e.mu.Unlock()
	}
}

// among has a node know some, itself among them or not, as its fleet file says.
func (c *control) among(nodes ...*control) {
	c.Peers, c.Others, c.Turn = nil, nil, 0
	for i, o := range nodes {
		if o == c {
			c.Turn = i
			continue
		}
		c.Peers, c.Others = append(c.Peers, o.Cluster), append(c.Others, o.Addr)
	}
}

func (c *control) restart(t testing.TB) {
	t.Helper()
	c.stop()
	c.start(t)
}

// membersAre waits until some nodes are the members, and keep the log.
func membersAre(t *testing.T, c *Client, nodes ...*control) {
	t.Helper()
	var want []string
	for _, n := range nodes {
		want = append(want, n.Node)
	}
	slices.Sort(want)
	var m *Members
	var replicas map[string]bool
	var err error
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("wanted %q, last %+v, %v, %v", want, m, replicas, err)
		}
	})
	until(t, fmt.Sprintf("%q are members, and have the log", want), func() bool {
		if m, err = c.Members(t.Context()); err != nil || !slices.Equal(m.Names(), want) || m.Others("") != len(want) {
			return false
		}
		if replicas, err = c.Replicas(t.Context()); err != nil || len(replicas) != len(want) {
			return false
		}
		for _, n := range want {
			if !replicas[n] {
				return false
			}
		}
		return true
	})
}

// remove takes a control node out.
func remove(t *testing.T, c *Client, node string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := c.RemoveMember(ctx, node); err != nil {
		t.Fatal(err)
	}
}

// One control node becomes three, and one again, by one step after the other as a deploy does;
// edges know the old addresses alone at first. No purge is lost, and nothing becomes stale.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	all := makeControl(t, t.TempDir(), 3)
	one := all[:1]
	all[0].among(one...)
	all[0].start(t)
	a, b := dial(t, one, "hel1", RoleEdge), dial(t, one, "nyc1", RoleEdge)
	old, admin := keep(t, a, Position{}), dial(t, all, "deploy", RoleAdmin)
	purges := purgeOn(t, b)
	purges.more(t)
	if m, err := admin.Members(t.Context()); err != nil || m.Grouped || !slices.Equal(m.Names(), []string{"c1"}) {
		t.Errorf("the members are %+v: %v", m, err)
	}

	all[0].among(all...)
	all[0].restart(t)
	purges.more(t)
	membersAre(t, admin, all[0])
	all[1].start(t)
	until(t, "the second is a member", func() bool {
		m, err := admin.Members(t.Context())
		return err == nil && m.Current["c2"]
	})
	purges.more(t)
	all[2].start(t)
	membersAre(t, admin, all...)
	purges.more(t)
	// it knows the log from before, and has all of it to apply
	young := keep(t, dial(t, all, "sgp1", RoleEdge), Position{Log: old.Applied().Log})
	all[0].stop() // any may be lost now
	later := purgeOn(t, dial(t, all[1:], "fra1", RoleEdge))
	later.more(t)
	later.stop()
	all[0].start(t)
	membersAre(t, admin, all...)
	purges.more(t)
	later.check(t, young)
	purges.check(t, old, young)
	agree(t, all...)
	purges = purgeOn(t, dial(t, one, "lhr1", RoleEdge))

	all[0].among(one...)
	all[0].restart(t)
	purges.more(t)
	for _, n := range []string{"c3", "c2"} {
		remove(t, admin, n)
		remove(t, admin, n) // is done already
	}
	membersAre(t, admin, all[0])
	purges.more(t)
	all[1].stop()
	all[2].stop()
	all[0].restart(t)
	purges.more(t)
	if err := admin.RemoveMember(short(t), "c1"); err == nil || !strings.Contains(err.Error(), "only control node") {
		t.Errorf("the last one was removed: %v", err)
	}
	purges.check(t, old, young)
	later.check(t, young)
	if _, err := os.Stat(filepath.Join(all[2].Dir, "jetstream.removed")); err != nil {
		t.Errorf("what the removed node had is not aside: %v", err)
	}
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// One of three is replaced by another machine, then one that lost its disk comes back under its
// name, then one gets other addresses.
func TestReplaceControlNodes(t *testing.T) {
	t.Parallel()
	four := makeControl(t, t.TempDir(), 4)
	before, after := four[:3], []*control{four[0], four[1], four[3]}
	for _, c := range before {
		c.among(before...)
		c.start(t)
	}
	edge, admin := keep(t, dial(t, before, "hel1", RoleEdge), Position{}), dial(t, four, "deploy", RoleAdmin)
	purges := purgeOn(t, dial(t, before[:2], "nyc1", RoleEdge))
	membersAre(t, admin, before...)
	purges.more(t)
	for _, c := range after { // c4 is new
		if c.stop != nil {
			c.stop()
		}
		c.among(after...)
		c.start(t)
		until(t, "it is a member and has all", func() bool {
			m, err := admin.Members(t.Context())
			return err == nil && m.Current[c.Node] && m.Others("") >= 3
		})
		purges.more(t)
	}
	four[2].stop() // its machine is lost
	purges.more(t)
	remove(t, admin, "c3")
	membersAre(t, admin, after...)
	purges.more(t)

	lost := four[1]
	lost.stop()
	if err := os.RemoveAll(lost.Dir); err != nil {
		t.Fatal(err)
	}
	purges.more(t)
	lost.start(t)
	membersAre(t, admin, after...)
	purges.more(t)

	moved := four[3]
	moved.stop()
	moved.Addr, moved.Cluster = freeport.Addr(t), freeport.Addr(t)
	admin = dial(t, four, "deploy", RoleAdmin)
	for _, c := range []*control{moved, four[0], four[1]} {
		c.among(after...)
		if c != moved {
			c.stop()
		}
		c.start(t)
		membersAre(t, admin, after...)
		purges.more(t)
	}
	purges.check(t, edge)
}

// agree waits until control nodes have the same log, to its last entry.
func agree(t *testing.T, nodes ...*control) {
	t.Helper()
	until(t, "the copies of the log are the same", func() bool {
		var ends []logEnd
		for _, c := range nodes {
			s, err := c.copyState(t.Context())
			if err != nil {
				return false
			}
			ends = append(ends, s.logEnd)
		}
		return ends[0].Mark != 0 && len(slices.Compact(ends)) == 1
	})
}

// Two of three control nodes lose their disks. Without the third they begin no other log, and
// confirm no end of one; with it nothing is lost.
func TestTwoLoseTheirDisks(t *testing.T) {
	t.Parallel()
	all := makeControl(t, t.TempDir(), 3)
	for _, c := range all {
		c.start(t)
	}
	admin := dial(t, all, "deploy", RoleAdmin)
	edge := keep(t, dial(t, all, "hel1", RoleEdge), Position{})
	seq := appendPurge(t, admin, 0)
	replicasOf(t, admin, 3)
	until(t, "the edge has it", func() bool { return edge.Applied().Seq == seq })
	before := edge.Applied()
	for _, c := range all {
		c.stop()
	}
	for _, c := range all[1:] {
		if err := os.RemoveAll(c.Dir); err != nil {
			t.Fatal(err)
		}
		c.start(t)
	}
	other := dial(t, all[1:], "nyc1", RoleEdge)
	until(t, "a node that lost its disk takes an edge", func() bool { return other.conn.IsConnected() })
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if at, _, err := other.position(short(t)); err == nil {
			t.Fatalf("without the node that has the log it ends at %+v", at)
		}
	}
	all[0].start(t)
	if next := appendPurge(t, admin, 1); next != seq+1 {
		t.Errorf("after %d comes %d", seq, next)
	}
	replicasOf(t, admin, 3)
	agree(t, all...)
	until(t, "the edge goes on", func() bool { return edge.Applied().Seq == seq+1 && edge.Proven() })
	edge.mu.Lock()
	defer edge.mu.Unlock()
	if now := edge.Applied(); now.Log != before.Log || len(edge.lost) > 0 {
		t.Errorf("an edge was at %+v and is at %+v, and took all as stale at %v", before, now, edge.lost)
	}
}

// As long as one control node of the fleet file is away that may have the log, the others begin no
// other one.
func TestNoLogWithoutAll(t *testing.T) {
	t.Parallel()
	all := makeControl(t, t.TempDir(), 3)
	all[0].among(all[0])
	all[0].start(t)
	admin := dial(t, all, "deploy", RoleAdmin)
	seq := appendPurge(t, admin, 0)
	at, _, err := admin.position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all[0].stop()
	for _, c := range all[1:] {
		c.start(t)
	}
	// There is no end of waiting to be waited for: two elections' time is as good as any.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, c := range all[1:] {
			if c.nats().JetStreamIsLeader() {
				t.Fatalf("%s leads a group without the node that has the log", c.Node)
			}
		}
	}
	all[0].among(all...)
	all[0].start(t)
	membersAre(t, admin, all...)
	if next := appendPurge(t, admin, 1); next != seq+1 {
		t.Errorf("after %d comes %d", seq, next)
	}
	if now, _, err := admin.position(t.Context()); err != nil || now.Log != at.Log {
		t.Errorf("the log was %v and is %v: %v", at, now, err)
	}
}

// A control node that waited for others in vain goes on alone, when the fleet file has none any
// more.
func TestAloneAfterAll(t *testing.T) {
	t.Parallel()
	c := makeControl(t, t.TempDir(), 3)[0]
	c.start(t)
	until(t, "it knows nobody", func() bool { m := c.meta(); return m != nil && m.Leader == "" })
	c.stop()
	c.among(c)
	c.start(t)
	if seq := appendPurge(t, dial(t, []*control{c}, "hel1", RoleEdge), 0); seq != 1 {
		t.Errorf("the first purge is %d", seq)
	}
}

// What two control nodes have is not mixed: the second does not start.
func TestTwoLogs(t *testing.T) {
	t.Parallel()
	two := makeControl(t, t.TempDir(), 2)
	for _, c := range two {
		c.among(c)
		c.start(t)
		appendPurge(t, dial(t, []*control{c}, "hel1", RoleEdge), 0)
		c.stop()
	}
	for _, c := range two {
		c.among(two...)
	}
	two[0].start(t)
	appendPurge(t, dial(t, two[:1], "hel1", RoleEdge), 1)
	if err := two[1].Listen(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "control node c1 has another one") {
		t.Errorf("the other one starts: %v", err)
	}
}

// A carrying over that is cut at any step is done again by the next start, with nothing lost.
func TestCarryOverIsCut(t *testing.T) {
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
		until(t, what+": the log is there", func() bool {
			now, first, err := admin.position(t.Context())
			return err == nil && now == at && first == 1
		})
		v := vaultOf(t, vault)
		until(t, what+": the vault is there", func() bool {
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
			until(t, "it has come", func() bool { now := edge.Applied(); return now.Log == at.Log && now.Seq == 11 })
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
	if err := c.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "no name of a group") {
		t.Errorf("it starts: %v", err)
	}
}
