package fleet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// rawNode is a node's connection on which a test speaks the NATS protocol itself.
type rawNode struct {
	conn net.Conn
	in   *bufio.Reader
	node string
}

// dialRaw connects with a certificate of a node. kept says that CONNECT was sent.
func dialRaw(t *testing.T, addr string, conf *tls.Config, node string) *rawNode {
	t.Helper()
	c, err := tls.Dial("tcp", addr, withRole(conf, RoleControl))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r := &rawNode{c, bufio.NewReader(c), node}
	r.line(t, "INFO ")
	r.send(t, `CONNECT {"verbose":false,"headers":true,"no_responders":true,"protocol":1,"user":"somebody"}`+
		"\r\nPING\r\n")
	r.line(t, "PONG")
	return r
}

func (r *rawNode) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(r.conn, text); err != nil {
		t.Fatal(err)
	}
}

// line reads up to a line that begins so.
func (r *rawNode) line(t *testing.T, begin string) string {
	t.Helper()
	for {
		line, err := r.in.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: waited for %s: %v", r.node, begin, err)
		}
		if strings.HasPrefix(line, begin) {
			return line
		}
	}
}

// refused sends a frame, and reports whether the connection ends of it. A frame that is not refused
// has been dealt with by the server when this returns.
func (r *rawNode) refused(t *testing.T, frame string) bool {
	t.Helper()
	if _, err := io.WriteString(r.conn, frame+"PING\r\n"); err != nil {
		return true
	}
	for {
		line, err := r.in.ReadString('\n')
		if err != nil {
			return !errors.As(err, new(net.Error)) || !isTimeout(err)
		}
		if strings.HasPrefix(line, "PONG") {
			return false
		}
	}
}

// state is how many messages each stream has had.
func state(t *testing.T, c *Client) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{purgeStream, "KV_" + leaseBucket, "KV_" + drainBucket, "KV_" + certificateBucket,
		"KV_" + challengeBucket} {
		ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
		s, err := c.js.Stream(ctx, name)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d\n", name, s.CachedInfo().State.LastSeq)
	}
	return b.String()
}

// No credential writes anywhere by a subject for answers: each role's tries every subject that it
// may publish to, with the answer to every subject of interest.
func TestAnswersStayInTheInbox(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	k := key(t, "k")
	admin := dialControl(t, k, nodes[0])
	appendPurge(t, admin, 1)
	before := ""
	replies := []string{purgeSubject + ".all", subjectOf(""), subjectOf("shop"), "$KV." + leaseBucket + ".hel1",
		"$KV." + leaseBucket + ".evil", "$KV." + drainBucket + ".hel1",
		"$KV." + certificateBucket + ".x", "$KV." + challengeBucket + ".x", "_INBOX.hel1.x", "_INBOX.evilx.y",
		"_INBOX.>", "$JS.API.STREAM.DELETE." + purgeStream, "$SYS.REQ.SERVER.PING", "x"}
	// They take turns: there are not as many as replies, so that each reply meets each form.
	forms := []string{"PUB %s %s 2\r\n{}\r\n", "HPUB %s %s 12 14\r\nNATS/1.0\r\n\r\n{}\r\n", "pub  %s\t%s 2\r\n{}\r\n"}
	tried := 0
	for _, who := range []struct {
		role  string
		sites []string
	}{{RoleEdge, nil}, {RoleEdge, []string{"www"}}, {RoleGeoDNS, nil}, {RoleAdmin, nil}} {
		t.Run(who.role+strings.Join(who.sites, ""), func(t *testing.T) {
			conf := credentialTLS(t, k, "evil", who.role, who.sites)
			own := dialRaw(t, nodes[0].Addr, conf, "evil")
			// what it wants to have somewhere else
			own.refused(t, "PUB $KV."+leaseBucket+".evil 12\r\n{\"all\":true}\r\n")
			before = state(t, admin)
			for _, pattern := range permissions("evil", []string{who.role}, who.sites).Publish.Allow {
				subject := strings.NewReplacer(".>", ".x", ".*", ".x").Replace(pattern)
				if strings.HasPrefix(pattern, "$JS.API.DIRECT.GET.KV_"+leaseBucket+".>") {
					subject = "$JS.API.DIRECT.GET.KV_" + leaseBucket + ".$KV." + leaseBucket + ".evil"
				}
				for _, reply := range replies {
					frame := fmt.Sprintf(forms[tried%len(forms)], subject, reply)
					tried++
					if !dialRaw(t, nodes[0].Addr, conf, "evil").refused(t, frame) {
						t.Errorf("%q is not refused", frame)
					}
				}
			}
			if now := state(t, admin); now != before {
				t.Errorf("something was written: before\n%safter\n%s", before, now)
			}
		})
	}
}

// Nor by what makes a server send something: consumers, header fields.
func TestFramesRefused(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	k := key(t, "k")
	admin := dialControl(t, k, nodes[0])
	appendPurge(t, admin, 1)
	conf := credentialTLS(t, k, "evil", RoleGeoDNS, nil)
	listener := dialRaw(t, nodes[0].Addr, conf, "evil") // a subject that nobody listens to gets nothing delivered
	listener.send(t, "SUB purge.all 1\r\n")
	lease := "$KV." + leaseBucket + ".evil"
	create := "$JS.API.CONSUMER.CREATE.KV_" + leaseBucket
	pub := func(subject, body string) string {
		return fmt.Sprintf("PUB %s _INBOX.evil.x %d\r\n%s\r\n", subject, len(body), body)
	}
	hpub := func(subject, fields string) string {
		head := "NATS/1.0\r\n" + fields + "\r\n"
		return fmt.Sprintf("HPUB %s _INBOX.evil.x %d %d\r\n%s{}\r\n", subject, len(head), len(head)+2, head)
	}
	before := state(t, admin)
	for _, frame := range []string{
		pub(create, `{"stream_name":"KV_leases","config":{"deliver_subject":"purge.all","ack_policy":"none"}}`),
		pub(create, `{"stream_name":"KV_leases","config":{"deliver_subject":"_INBOX.evil.x","DELIVER_subject":"purge.all","ack_policy":"none"}}`),
		pub(create, `{"stream_name":"KV_leases","config":{"deliver_subject":"_INBOX.evil.>","ack_policy":"none"}}`),
		pub(create, `{"stream_name":"KV_leases","config":{"ack_policy":"none","republish":{"dest":"purge.all"}}}`),
		pub(create, `{"stream_name":"KV_leases","config":{}} {}`),
		pub(create, `{"stream_name":"KV_leases","config":{"metadata":{"a":"`+strings.Repeat("a", maxConsumer)+`"}}}`),
		pub(create+".x", `nonsense`),
		hpub(create, ""),
		hpub(lease, "Nats-Trace-Dest: purge.all\r\n"),
		hpub(lease, "Nats-Schedule: @every 1s\r\nNats-Schedule-Target: purge.all\r\n"),
		hpub(lease, "nats-trace-dest: purge.all\r\n"),
		hpub(lease, "A: "+strings.Repeat("a", maxHeader)+"\r\n"),
		"HPUB " + lease + " 9 5\r\n{}\r\n",
		"HPUB " + lease + " -1 2\r\n{}\r\n",
		"PUB " + lease + " 99999999999\r\n",
		"PUB " + lease + " 2\r\n{}PUB\r\n",
		"PUB " + lease + "\r\n",
		"RMSG $G purge.all 2\r\n{}\r\n",
		"LMSG $G purge.all 2\r\n{}\r\n",
		"+OK\r\n",
		"CONNECT {}\r\n",
		"INFO {}\r\n",
		"PUB " + strings.Repeat("a", maxLine) + " 2\r\n{}\r\n",
	} {
		if !dialRaw(t, nodes[0].Addr, conf, "evil").refused(t, frame) {
			t.Errorf("%.120q is not refused", frame)
		}
	}
	if now := state(t, admin); now != before {
		t.Errorf("something was written: before\n%safter\n%s", before, now)
	}
}

// A client that waits for the server's first line is told to begin the handshake.
func TestHelloInClear(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	c, err := net.Dial("tcp", nodes[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err != nil || !strings.Contains(line, `"tls_required":true`) || strings.Contains(line, "version") {
		t.Fatalf("%q, %v", line, err)
	}
	conf, err := key(t, "k").TLS("hel1", RoleEdge)
	if err != nil {
		t.Fatal(err)
	}
	secure := tls.Client(c, withRole(conf, RoleControl))
	if _, err := io.WriteString(secure, "CONNECT {\"protocol\":1}\r\nPING\r\n"); err != nil {
		t.Fatal(err)
	}
	(&rawNode{secure, bufio.NewReader(secure), "hel1"}).line(t, "PONG")
}

// One address that never ends its handshakes does not keep nodes from connecting for long.
func TestEarlyConnections(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	refused := false
	for i := 0; i < 10 && !refused; i++ { // on a slow machine the time of some is over before all are there
		refused = refusesOneMore(t, nodes[0].Addr)
	}
	if !refused {
		t.Error("there is no bound for connections that show no certificate")
	}
	edge := dial(t, nodes, "hel1", RoleEdge) // once their time is over
	testwait.Until(t, "hel1 is connected", edge.conn.IsConnected)
}

// refusesOneMore opens maxEarly connections that say nothing and reports whether one more is closed
// at once.
func refusesOneMore(t *testing.T, addr string) bool {
	t.Helper()
	var c net.Conn
	for range maxEarly + 1 {
		var err error
		if c, err = net.Dial("tcp", addr); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(make([]byte, 1)) // one that is taken is told to begin the handshake
	return n == 0 && err != nil && !isTimeout(err)
}

// dialControl connects as a control node, which may read the state of all streams.
func dialControl(t *testing.T, k Key, n *control) *Client {
	t.Helper()
	conf, err := k.TLS("watcher", RoleControl)
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{Node: "watcher", Servers: []string{n.Addr}, TLS: conf, Log: logTo(t)}
	if err := c.Dial(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	testwait.Until(t, "the buckets are there", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
		defer cancel()
		_, err := c.js.Stream(ctx, "KV_"+challengeBucket)
		return err == nil
	})
	return c
}

// credentialTLS is how a node speaks that has a credential.
func credentialTLS(t *testing.T, k Key, node, role string, sites []string) *tls.Config {
	t.Helper()
	authorities, err := k.authorities()
	if err != nil {
		t.Fatal(err)
	}
	der, leaf, err := authorities[0].newLeaf(node, []string{role}, sites)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := k.TLS(node, role)
	if err != nil {
		t.Fatal(err)
	}
	conf.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: leaf}}
	return conf
}

// What comes out of frames, whatever goes in, has no answer outside of the node's inbox.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("PUB a 2\r\n{}\r\nHPUB a _INBOX.n.x 12 14\r\nNATS/1.0\r\n\r\n{}\r\nSUB _INBOX.n.x 1\r\nPING\r\n"))
	f.Add([]byte("PUB $JS.API.CONSUMER.CREATE.KV_leases _INBOX.n.x 47\r\n{\"stream_name\":\"KV_leases\",\"config\":{\"name\":\"x\"}}\r\n"))
	f.Add([]byte("PUB a b 2\r\n{}\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		_ = (&frames{who: identity{node: "n"}, from: bufio.NewReader(bytes.NewReader(in)), to: &out}).copy()
		var again bytes.Buffer
		err := (&frames{who: identity{node: "n"}, from: bufio.NewReader(bytes.NewReader(out.Bytes())),
			to: &again}).copy()
		if !bytes.Equal(out.Bytes(), again.Bytes()) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Fatalf("%q became %q, of which frames takes %q: %v", in, out.Bytes(), again.Bytes(), err)
		}
	})
}
