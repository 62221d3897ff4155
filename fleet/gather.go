package fleet

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The users of the process's own connections to its server.
const (
	userFleet  = "fleet"  // has all rights where the streams are
	userSystem = "system" // changes the membership of the group
)

// inside connects to a server in this process.
func inside(s *server.Server, user, secret string) (*nats.Conn, jetstream.JetStream, error) {
	opts := []nats.Option{nats.InProcessServer(s), nats.NoReconnect(), nats.Timeout(callTimeout)}
	if user != "" {
		opts = append(opts, nats.UserInfo(user, secret))
	}
	conn, err := nats.Connect("", opts...)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the control server of this process: %w", err)
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(callTimeout))
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, js, nil
}

// own reports whether a client is the process itself. The gate passes no passwords on.
func (c *Control) own(opts *server.ClientOpts) bool {
	return opts.Username != "" && subtle.ConstantTimeCompare([]byte(opts.Password), []byte(c.secret)) == 1
}

// settle decides how the server is to run, by the folder and the fleet file.
func (c *Control) settle(ctx context.Context) error {
	f := folder(c.Dir)
	if err := f.undo(); err != nil {
		return fmt.Errorf("restore the log of purges after an interrupted conversion: %w", err)
	}
	in, err := f.inGroup()
	if err != nil {
		return err
	}
	if c.group, err = f.group(); err != nil {
		return err
	}
	if c.fresh, err = f.fresh(); err != nil {
		return err
	}
	if in && !c.fresh || len(c.Peers) == 0 && c.group == "" {
		return nil // no change; a node that is alone and has no group needs none
	}
	has, err := f.hasStreams()
	if err != nil {
		return err
	}
	if c.fresh || !has {
		return c.begin(ctx)
	}
	others := c.look(ctx, true)
	for _, o := range others {
		if o.log || o.group != "" && o.group != firstGroup {
			return fmt.Errorf("this node has a log of purges in %s, and control node %s has another one: move aside the folder of the log that you don't want", c.Dir, o.node)
		}
	}
	c.Log.Info("control plane: converts the log of purges to a group that other control nodes can join", "dir", c.Dir)
	if err := c.beginConversion(ctx); err != nil {
		return fmt.Errorf("convert the log of purges: %w", err)
	}
	return nil
}

// begin resets a node without data, because the fleet file may have changed since the last start.
func (c *Control) begin(ctx context.Context) error {
	f := folder(c.Dir)
	if len(c.Peers) == 0 {
		c.group, c.fresh = "", false
		return os.RemoveAll(f.store())
	}
	c.group, c.fresh = groupOf(c.look(ctx, false), c.group), true
	return f.enter(c.group)
}

// groupOf returns the group that a new node joins: that of the other nodes, or else its present
// one.
func groupOf(others []other, now string) string {
	for _, o := range others {
		if o.group != firstGroup && isGroup(o.group) {
			return o.group
		}
	}
	if now == "" {
		return firstGroup
	}
	return now
}

// other is the answer of another control node.
type other struct {
	node  string
	group string // "" means none, because the node has always been alone
	log   bool   // whether it has the log of purges, or is in a group that does; if that was asked
}

// look asks all other control nodes, and returns the answers.
func (c *Control) look(ctx context.Context, log bool) []other {
	client := &Client{Node: c.Node, Servers: c.Others, TLS: c.TLS, Log: c.Log, ctx: ctx}
	found := make([]other, len(c.Others))
	var work sync.WaitGroup
	for i, addr := range c.Others {
		work.Go(func() {
			conn, err := nats.Connect(natsURL(addr), append(client.options(), nats.NoReconnect())...)
			if err != nil {
				return // it is down, or is converting its log
			}
			defer conn.Close()
			found[i] = other{node: conn.ConnectedServerName(), group: conn.ConnectedClusterName()}
			if js, err := jetstream.New(conn); err == nil && log {
				found[i].log = hasLog(ctx, js)
			}
		})
	}
	work.Wait()
	return slices.DeleteFunc(found, func(o other) bool { return o.node == "" })
}

const (
	gatherEvery = 50 * time.Millisecond
	lookEvery   = 2 * time.Second
	tellAfter   = 10 * time.Second
)

// gather waits until the node's group has a leader. Without a ctx, it waits for as long as other
// nodes are missing.
func (c *Control) gather(ctx context.Context) error {
	var starter *server.Server
	defer func() {
		if starter != nil {
			starter.Shutdown()
			starter.WaitForShutdown()
		}
	}()
	began, looked, told := time.Now(), time.Now(), ""
	for {
		meta := c.meta()
		if meta != nil && meta.Leader != "" {
			return folder(c.Dir).entered()
		}
		if meta != nil && meta.Size == 1 && starter == nil {
			var err error
			if starter, err = c.startAlone(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(gatherEvery):
		}
		if c.fresh && time.Since(looked) > lookEvery {
			if group := groupOf(c.look(ctx, false), c.group); group != c.group {
				if err := c.move(group); err != nil {
					return err
				}
			}
			looked = time.Now()
		}
		if text := c.missing(); time.Since(began) > tellAfter && text != told {
			told = text
			c.Log.Warn(text)
		}
	}
}

// move makes a node without data start again in the group of the others.
func (c *Control) move(group string) error {
	c.Log.Info("control plane: joins the group of the others", "group", group)
	c.halt()
	c.group = group
	if err := folder(c.Dir).enter(group); err != nil {
		return err
	}
	return c.start()
}

// missing returns a message that says what gather waits for.
func (c *Control) missing() string {
	here := []string{}
	if r, err := c.nats().Routez(nil); err == nil {
		for _, route := range r.Routes {
			if n := route.RemoteName; n != c.Node && n != starterName(c.Node) && !slices.Contains(here, n) {
				here = append(here, n)
			}
		}
	}
	slices.Sort(here)
	need := "a majority of its members"
	if c.fresh {
		need = fmt.Sprintf("one of its members, or all %d control nodes of the fleet file: a control node that is missing may have the log of purges, so no new log is started", len(c.Peers)+1)
	}
	return fmt.Sprintf("control plane: waits for %s; connected with this node: [%s]", need, strings.Join(here, " "))
}

// meta returns what the server knows of its group, or nil.
func (c *Control) meta() *server.MetaClusterInfo {
	info, err := c.nats().Jsz(nil)
	if err != nil {
		return nil
	}
	return info.Meta
}

func starterName(node string) string { return node + "-starter" }

// startAlone starts a second server that stores nothing and accepts no clients. The first server
// starts no election before it is connected to another server, even if it is the only member of its
// group. The second one is needed for the election only.
func (c *Control) startAlone() (*server.Server, error) {
	s, err := server.NewServer(&server.Options{ServerName: starterName(c.Node), Host: "127.0.0.1",
		Port: server.RANDOM_PORT, NoSigs: true, CustomClientAuthentication: nobody{},
		Routes: []*url.URL{c.self()}, Cluster: server.ClusterOpts{Name: c.group, Host: "127.0.0.1",
			Port: server.RANDOM_PORT, NoAdvertise: true, PoolSize: 1,
			TLSConfig: withRole(c.TLS, RoleControl), TLSTimeout: 5, AuthTimeout: 6}})
	if err != nil {
		return nil, fmt.Errorf("start the control server's helper: %w", err)
	}
	s.SetLoggerV2(natsLog{log: c.Log.With("part", "control")}, false, false, false)
	s.Start()
	return s, nil
}

// nobody is an authentication that refuses all clients.
type nobody struct{}

// Check implements server.Authentication.
func (nobody) Check(server.ClientAuthentication) bool { return false }
