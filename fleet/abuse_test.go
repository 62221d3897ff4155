package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// ask sends a message and returns what the server answers in the node's inbox.
func (r *rawNode) ask(t *testing.T, subject, body string) string {
	t.Helper()
	r.send(t, fmt.Sprintf("PUB %s _INBOX.%s.r %d\r\n%s\r\n", subject, r.node, len(body), body))
	size := 0
	words := strings.Fields(r.line(t, "MSG"))
	if _, err := fmt.Sscan(words[len(words)-1], &size); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size+2)
	if _, err := io.ReadFull(r.in, b); err != nil {
		t.Fatal(err)
	}
	return string(b[:size])
}

// abused is a control node, its client that may read everything, and a way to connect as one of its
// nodes that was stolen.
type abused struct {
	node  *control
	admin *Client
	dial  func(node, role string) *rawNode
}

func startAbused(t *testing.T) *abused {
	t.Helper()
	nodes, k := startControl(t, t.TempDir(), 1), key(t, "k")
	return &abused{nodes[0], dialControl(t, k, nodes[0]), func(node, role string) *rawNode {
		r := dialRaw(t, nodes[0].Addr, credentialTLS(t, k, node, role, nil), node)
		r.send(t, "SUB _INBOX."+node+".> 1\r\n")
		return r
	}}
}

// refuses reports an error unless a connection of its own ends of a frame.
func (a *abused) refuses(t *testing.T, role, frame string) {
	t.Helper()
	if !a.dial("evil", role).refused(t, frame) {
		t.Errorf("%s: %.200q is not refused", role, frame)
	}
}

func pubFrame(subject, body string) string {
	return fmt.Sprintf("PUB %s _INBOX.evil.x %d\r\n%s\r\n", subject, len(body), body)
}

// consumersOf are the consumers of a stream.
func consumersOf(t *testing.T, c *control, stream string) []jetstream.ConsumerInfo {
	t.Helper()
	conn, js, err := inside(c.nats(), userFleet, c.secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	var out []jetstream.ConsumerInfo
	list := s.ListConsumers(t.Context())
	for info := range list.Info() {
		out = append(out, *info)
	}
	if list.Err() != nil {
		t.Fatal(list.Err())
	}
	return out
}

// NATS has 1000 consumers of a stream at most, and keeps one for as long as who made it wants. One
// node's credential doesn't take them all from the others, nor for ever.
func TestConsumersOfOneNode(t *testing.T) {
	a := startAbused(t)
	before := len(consumersOf(t, a.node, "KV_leases"))
	evil := a.dial("evil", RoleGeoDNS)
	for i := range 3 * maxNodeConsumers {
		config := fmt.Sprintf(`{"stream_name":"KV_leases","config":{"name":"c%d","deliver_policy":"all","ack_policy":"none","num_replicas":1,"max_waiting":1000000,"max_ack_pending":-1,"inactive_threshold":9000000000000000000,"metadata":{"a":"b"}}}`, i)
		subject := createConsumer + "KV_leases"
		if i%2 == 0 {
			subject += fmt.Sprintf(".c%d", i)
		}
		if got := evil.ask(t, subject, config); strings.Contains(got, "error") ||
			!strings.Contains(got, fmt.Sprintf(`"name":"c%d"`, i)) {
			t.Fatal(got)
		}
	}
	testwait.Until(t, "as many are left as one connection may have", func() bool {
		return len(consumersOf(t, a.node, "KV_leases")) <= before+maxNodeConsumers
	})
	for _, c := range consumersOf(t, a.node, "KV_leases") {
		if conf := c.Config; strings.HasPrefix(c.Name, "c") &&
			(!conf.MemoryStorage || conf.InactiveThreshold > time.Minute || conf.MaxWaiting > 512 ||
				conf.Metadata["a"] != "") {
			t.Errorf("%+v", conf)
		}
	}
	evil.conn.Close()
	testwait.Until(t, "those of a connection have ended with it",
		func() bool { return len(consumersOf(t, a.node, "KV_leases")) == before })

	for _, config := range []string{`{"ack_policy":"explicit","max_ack_pending":-1}`, `{}`,
		`{"ack_policy":"none","idle_heartbeat":1000}`, `{"ack_policy":"none","name":"a.b"}`,
		`{"ack_policy":"none","name":"` + strings.Repeat("a", 65) + `"}`} {
		a.refuses(t, RoleGeoDNS, pubFrame(createConsumer+"KV_leases",
			`{"stream_name":"KV_leases","config":`+config+`}`))
	}
	a.refuses(t, RoleGeoDNS, pubFrame(createConsumer+"KV_leases",
		`{"stream_name":"KV_drain","config":{"ack_policy":"none"}}`))
}

// A node that deletes its consumers has as many new ones as it likes, and keeps the others.
func TestConsumersThatWereDeleted(t *testing.T) {
	a := startAbused(t)
	node := a.dial("ns1", RoleGeoDNS)
	create := func(name string) {
		t.Helper()
		if got := node.ask(t, createConsumer+"PURGES",
			`{"stream_name":"PURGES","config":{"name":"`+name+
				`","deliver_policy":"all","ack_policy":"none","inactive_threshold":60000000000}}`); strings.Contains(got, "error") {
			t.Fatal(got)
		}
	}
	create("first")
	for i := range 2 * maxNodeConsumers {
		create(fmt.Sprint("c", i))
		if got := node.ask(t, fmt.Sprintf("%sPURGES.c%d", deleteConsumer, i), ""); strings.Contains(got, "error") {
			t.Fatal(got)
		}
	}
	if got := consumersOf(t, a.node, "PURGES"); !slices.ContainsFunc(got,
		func(c jetstream.ConsumerInfo) bool { return c.Name == "first" }) {
		t.Errorf("the first is gone: %v", got)
	}
}

// A name server's entry doesn't take the place of all others in the bucket.
func TestRollupIsOfOneSubject(t *testing.T) {
	a := startAbused(t)
	victim := a.dial("hel1", RoleEdge)
	victim.ask(t, "$KV.leases.hel1", `{"node":"hel1"}`)
	for _, rollup := range []string{"all", "ALL", "sub\r\nNats-Rollup: all"} {
		head := "NATS/1.0\r\nNats-Rollup: " + rollup + "\r\n\r\n"
		for _, subject := range []string{"$KV.leases.evil", "$KV.challenges.61.62"} {
			a.refuses(t, RoleEdge, fmt.Sprintf("HPUB %s _INBOX.evil.x %d %d\r\n%s\r\n", subject, len(head), len(head),
				head))
		}
	}
	if l, _, err := a.admin.Lease(t.Context(), "hel1"); err != nil || l.Node != "hel1" {
		t.Errorf("%+v, %v", l, err)
	}
}

// A message is no larger than those of its subject have to be: a lease goes to all nodes each
// second.
func TestMessagesFitTheirSubjects(t *testing.T) {
	a := startAbused(t)
	for subject, limit := range map[string]int{"$KV.leases.evil": maxEntry, "$KV.drain.hel1": maxEntry,
		"$KV.challenges.61.62": maxEntry, "$KV.certificates.61": 2 * maxVaultValue,
		"$JS.API.STREAM.INFO.PURGES": maxRequest, createConsumer + "PURGES": maxConsumer, "purge.all": maxPurge} {
		frame := fmt.Sprintf("PUB %s _INBOX.evil.x %d\r\n", subject, limit+1)
		if !a.dial("evil", RoleEdge).refused(t, frame) {
			t.Errorf("%q is not refused", frame)
		}
	}
	edge := a.dial("hel1", RoleEdge)
	if got := edge.ask(t, "purge.all", strings.Repeat(" ", maxPurge)); !strings.Contains(got, `"seq"`) {
		t.Error(got)
	}
	head := "NATS/1.0\r\nNats-Msg-Id: " + strings.Repeat("a", maxField+1) + "\r\n\r\n"
	a.refuses(t, RoleEdge, fmt.Sprintf("HPUB purge.all _INBOX.evil.x %d %d\r\n%s{}\r\n", len(head), len(head)+2, head))
}

// A lease says no more than the certificate of its node: orders of certificates wait for whoever
// says that it is a name server.
func TestForgedLeases(t *testing.T) {
	a := startAbused(t)
	for _, lease := range []string{`{"node":"evil","roles":["geodns"]}`, `{"node":"evil","roles":["edge","control"]}`,
		`{"node":"hel1"}`, `{"node":"evil","load":-1}`, `{"node":"evil","load":1e300}`,
		`{"node":"evil","version":"\u001b[2J"}`, `{"node":"evil","roles":["edge"],"ROLES":["geodns"]}`, `nonsense`} {
		a.refuses(t, RoleEdge, pubFrame("$KV.leases.evil", lease))
		if lease != "nonsense" {
			head := "NATS/1.0\r\n\r\n"
			a.refuses(t, RoleEdge, fmt.Sprintf("HPUB $KV.leases.evil _INBOX.evil.x %d %d\r\n%s%s\r\n", len(head),
				len(head)+len(lease), head, lease))
		}
	}
	honest, err := json.Marshal(Lease{Node: "evil", Version: "v1.2.3", Roles: []string{RoleEdge}, Region: "eu",
		Load: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got := a.dial("evil", RoleEdge).ask(t, "$KV.leases.evil", string(honest)); !strings.Contains(got, `"seq"`) {
		t.Error(got)
	}
}

// What no version has as a subject of purges doesn't come into the log, and would stop no edge.
func TestPurgeSubjects(t *testing.T) {
	a := startAbused(t)
	edge := startEdge(t, dial(t, []*control{a.node}, "hel1", RoleEdge), Position{})
	testwait.Until(t, "it is in touch", edge.InTouch)
	for _, subject := range []string{"purge.zzz", "purge.all.x", "purge.site-", "purge.site-zz", "purge.site-7A",
		"purge.site-7a.x"} {
		a.refuses(t, RoleEdge, pubFrame(subject, "{}"))
	}
	conn, js, err := inside(a.node.nats(), userFleet, a.node.secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := js.Publish(t.Context(), "purge.zzz", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	seq := appendPurge(t, a.admin, 1)
	testwait.Until(t, "the edge has applied what came after it", func() bool { return edge.Applied().Seq >= seq })
}

// The connections of one node are few, the newest.
func TestConnectionsOfOneNode(t *testing.T) {
	a := startAbused(t)
	var conns []*rawNode
	for range maxNodeConns + 3 {
		conns = append(conns, a.dial("evil", RoleGeoDNS))
	}
	for i, c := range conns {
		if ended := c.refused(t, ""); ended != (i < 3) {
			t.Errorf("connection %d: ended is %v", i, ended)
		}
	}
	a.dial("ns1", RoleGeoDNS).refused(t, "") // others are none of them
}

// So are the subscriptions of a connection.
func TestSubscriptionsOfOneConnection(t *testing.T) {
	a := startAbused(t)
	evil := a.dial("evil", RoleGeoDNS)
	before := a.node.nats().NumSubscriptions()
	w := bufio.NewWriter(evil.conn)
	for i := range 4 * maxNodeSubs {
		fmt.Fprintf(w, "SUB _INBOX.evil.%d %d\r\n", i, i+2)
	}
	if err := w.Flush(); err != nil {
		t.Log(err) // the server may end the connection
	}
	evil.refused(t, "")
	// The control node has made some of its own meanwhile.
	if now := a.node.nats().NumSubscriptions(); now > before+2*maxNodeSubs {
		t.Errorf("%d subscriptions, %d before", now, before)
	}
}

// What a node sends is counted by bytes, by frames, and more for what is asked of JetStream, all
// its connections together.
func TestFramesAreCounted(t *testing.T) {
	in := "PING\r\nPUB a 5000\r\n" + strings.Repeat("x",
		5000) + "\r\nPUB $JS.API.STREAM.INFO.PURGES _INBOX.n.x 0\r\n\r\n"
	var costs []int
	f := &frames{who: identity{node: "n"}, from: bufio.NewReader(strings.NewReader(in)), to: io.Discard,
		spend: func(cost int) error {
			costs = append(costs, cost)
			return nil
		}}
	if err := f.copy(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if want := []int{frameCost, frameCost, 5000, frameCost, requestCost}; !slices.Equal(costs, want) {
		t.Errorf("%v, want %v", costs, want)
	}
	g := &gate{nodes: map[string]*allowance{}}
	var one, two net.Conn = &net.TCPConn{}, &net.TCPConn{}
	a := g.addConn("n", one)
	if b := g.addConn("n", two); a != b {
		t.Error("two connections of a node have two allowances")
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := a.spend(ctx, nodeBurst); err != nil {
		t.Fatal(err)
	}
	cancel()
	if a.spend(ctx, nodeBurst) == nil {
		t.Error("the allowance has no end")
	}
}

// Addresses of one IPv6 /64 are one network.
func TestNetworksOfConnections(t *testing.T) {
	of := func(s string) string { return networkOf(&net.TCPAddr{IP: net.ParseIP(s), Port: 1}).String() }
	if of("2001:db8::1") != of("2001:db8::ffff:1") || of("2001:db8::1") == of("2001:db8:0:1::1") ||
		of("192.0.2.1") == of("192.0.2.2") || of("192.0.2.1") != of("::ffff:192.0.2.1") {
		t.Error(of("2001:db8::1"), of("192.0.2.1"))
	}
}

// An edge has a say in names of challenges alone, not in those of SPF, DKIM and proofs of
// ownership.
func TestChallengesAtOtherNames(t *testing.T) {
	a := startAbused(t)
	evil := a.dial("evil", RoleEdge)
	for _, name := range []string{"example.com", "www._acme-challenge.example.com", "_dmarc.example.com", challenged} {
		c := challenge{name, "v=spf1 +all", time.Now().Add(time.Minute)}
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := evil.ask(t, "$KV.challenges."+c.key(), string(b)); !strings.Contains(got, `"seq"`) {
			t.Fatal(got)
		}
	}
	var mu sync.Mutex
	var last map[string][]string
	f := &ChallengeFollower{Client: dial(t, []*control{a.node}, "ns1", RoleGeoDNS),
		Set: func(values map[string][]string) {
			mu.Lock()
			defer mu.Unlock()
			last = values
		}}
	go func() { _ = f.Serve(t.Context()) }()
	if err := f.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(last) != 1 || len(last[challenged]) != 1 {
		t.Errorf("%v", last)
	}
}

// Those who wait for purges ask for the end of the log together: leases come by the hundred a
// second, and have all of them look.
func TestWaitersAskTogether(t *testing.T) {
	a := startAbused(t)
	r := &Registry{Client: a.admin}
	began := time.Now()
	if _, err := r.logEnd(t.Context(), began); err != nil {
		t.Fatal(err)
	}
	first := r.queriedAt
	if _, err := r.logEnd(t.Context(), began); err != nil || r.queriedAt != first &&
		r.queriedAt.Sub(first) <= time.Second {
		t.Errorf("asked again at once, %v", err)
	}
	if _, err := r.logEnd(t.Context(), time.Now()); err != nil || r.queriedAt == first {
		t.Errorf("not asked for one who came later, %v", err)
	}
}

// A node's junk costs it its connection, and nobody else anything.
func FuzzLease(f *testing.F) {
	f.Add([]byte(`{"node":"n","roles":["edge"],"load":0.5}`))
	f.Add([]byte(`{"node":"n","roles":["geodns"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		who := identity{node: "n", roles: []string{RoleEdge}}
		var out bytes.Buffer
		in := fmt.Sprintf("PUB $KV.leases.n %d\r\n%s\r\n", len(b), b)
		_ = (&frames{who: who, from: bufio.NewReader(strings.NewReader(in)), to: &out}).copy()
		var l Lease
		if out.Len() > 0 && len(b) > 0 && (json.Unmarshal(b, &l) != nil || l.Node != "n" || len(l.Roles) > 0 &&
			slices.ContainsFunc(l.Roles, func(r string) bool { return r != RoleEdge })) {
			t.Fatalf("%q was passed on", b)
		}
	})
}
