package fleet

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// dialTime is how long a control node may take to accept a connection. That leaves half a
	// second for the answer to a second SYN, enough over any ocean.
	dialTime = 1500 * time.Millisecond
	// pingEvery is how often a node pings its control node, and how long the answer may take.
	pingEvery = time.Second
	// deadAfter is how long a connection may be silent before the node connects to another control
	// node.
	deadAfter = 3 * time.Second
	// quietAfter is how long all control nodes may be silent before the node considers itself cut
	// off.
	quietAfter = 4 * time.Second
	// settleEvery is how often a node looks for a nearer control node. settleTime bounds the check
	// whether that one has the log.
	settleEvery = 15 * time.Second
	settleTime  = 3 * time.Second
)

// Dial starts to connect in the background, and retries for as long as the client lives. Close ends
// it.
func (c *Client) Dial() error {
	told := false // whether another fleet key was logged; NATS calls one handler at a time
	up := nats.ConnHandler(func(n *nats.Conn) {
		told = false
		c.tries.Store(0) // the next time, start with the nearest again
		c.recordActivity()
		next := make(chan struct{})
		close(*c.anew.Swap(&next))
		c.Log.Info("control plane: connected", "server", n.ConnectedAddr())
	})
	c.ctx, c.end = context.WithCancel(context.Background())
	first := make(chan struct{})
	c.anew.Store(&first)
	c.recordActivity()
	var err error
	c.conn, err = nats.Connect(natsURLs(c.Servers), append(c.options(),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectToServer(c.next),
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				// A control node restarts. Lasting outages are logged by those who are out of
				// touch.
				c.Log.Info("control plane: disconnected", "error", err)
			}
		}),
		nats.ConnectHandler(up), nats.ReconnectHandler(up),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if isOtherKey(err) && !told {
				told = true
				c.Log.Error("control plane: a control node and this node refuse each other: their fleet keys differ, or this node's credential was made with another key", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if isReportRefused(err) {
				c.noReports.Store(time.Now().UnixNano())
				return
			}
			level := slog.LevelWarn
			if errors.As(err, new(*net.OpError)) {
				level = slog.LevelInfo // because the connection ends
			}
			c.Log.Log(c.ctx, level, "control plane", "error", err)
		}),
	)...)
	if err != nil {
		return fmt.Errorf("connect to the control plane: %w", err)
	}
	if c.js, err = jetstream.New(c.conn, jetstream.WithDefaultTimeout(callTimeout)); err != nil {
		return err
	}
	c.work.Go(func() { c.ping(c.ctx) })
	if len(c.Servers) > 1 {
		c.work.Go(func() { c.settle(c.ctx) })
	}
	return nil
}

// isOtherKey reports whether a handshake failed because one side's certificate is of an authority
// that the other side doesn't trust.
func isOtherKey(err error) bool {
	// an alert has no type
	return errors.As(err, new(x509.UnknownAuthorityError)) || err != nil && strings.Contains(err.Error(),
		"tls: unknown certificate authority")
}

// Close ends the connection.
func (c *Client) Close() {
	c.end()
	c.conn.Close()
	c.work.Wait()
}

// options returns the options of all connections to control nodes.
func (c *Client) options() []nats.Option {
	opts := []nats.Option{nats.SetCustomDialer(dialFunc(c.dial)), nats.Name(c.Node),
		nats.Secure(withRole(c.TLS, RoleControl)), nats.Timeout(3 * time.Second), nats.FlusherTimeout(callTimeout),
		nats.DontRandomize(), nats.IgnoreAuthErrorAbort(), nats.IgnoreDiscoveredServers(),
		nats.CustomInboxPrefix(inbox(c.Node))}
	if !c.Greeted {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	return opts
}

func natsURLs(servers []string) string {
	urls := ""
	for i, s := range servers {
		if i > 0 {
			urls += ","
		}
		urls += natsURL(s)
	}
	return urls
}

func natsURL(server string) string { return "tls://" + server }

// dialFunc is a function as a nats.CustomDialer.
type dialFunc func(network, addr string) (net.Conn, error)

// Dial implements nats.CustomDialer.
func (f dialFunc) Dial(network, addr string) (net.Conn, error) { return f(network, addr) }

// dial connects to a control node. A refused connection is a sign of life, too: of the network, not
// of the control node.
func (c *Client) dial(network, addr string) (conn net.Conn, err error) {
	if c.DialTCP != nil {
		conn, err = c.DialTCP(network, addr)
	} else {
		conn, err = (&net.Dialer{Timeout: dialTime}).DialContext(c.ctx, network, addr)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		c.recordActivity()
	}
	if err != nil {
		return nil, err
	}
	return &activityConn{conn, c}, nil
}

// activityConn is a connection that counts all received bytes as signs of life. A pong may wait
// behind a large purge.
type activityConn struct {
	net.Conn
	client *Client
}

// Read implements io.Reader.
func (l *activityConn) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.client.received.Add(uint64(n))
		l.client.recordActivity()
	}
	return n, err
}

// next returns the control node to try next, and the pause before it. It starts with the nearest,
// and pauses after each round.
func (c *Client) next(pool []nats.Server, _ nats.ServerInfo) (*nats.Server, time.Duration) {
	n := int(c.tries.Add(1)) - 1
	i := n % len(c.Servers)
	pause := time.Duration(0)
	if n > 0 && i == 0 {
		pause = 500*time.Millisecond + rand.N(500*time.Millisecond)
	}
	found := slices.IndexFunc(pool, func(s nats.Server) bool { return s.URL.String() == natsURL(c.Servers[i]) })
	if found < 0 {
		return nil, 0 // NATS picks one itself
	}
	return &pool[found], pause
}

// activity has the time of the last sign of life, and the end of the last silence of at least
// quietAfter.
type activity struct{ last, quiet time.Time }

// recordActivity records a sign of life of the control plane, or of the network on the way to it.
func (c *Client) recordActivity() {
	now := time.Now()
	for {
		before := c.activity.Load()
		after := &activity{last: now}
		if before != nil {
			after.quiet = before.quiet
			if age(before.last) > quietAfter {
				after.quiet = now
			}
		}
		if c.activity.CompareAndSwap(before, after) {
			return
		}
	}
}

// age returns how long ago t was: the longer of the times by the wall clock, which runs on while a
// machine sleeps, and by the monotonic clock, which nobody can set. If the wall clock was set back,
// it returns the maximum.
func age(t time.Time) time.Duration {
	now := time.Now()
	wall := now.Round(0).Sub(t.Round(0))
	if wall < 0 {
		return math.MaxInt64
	}
	return max(wall, now.Sub(t))
}

// ping checks the connection until ctx ends, and reconnects if it is dead. TCP would take minutes
// to notice.
func (c *Client) ping(ctx context.Context) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !c.conn.IsConnected() || age(c.activity.Load().last) < pingEvery {
			continue
		}
		server := c.server()
		call, cancel := context.WithTimeout(ctx, pingEvery)
		err := c.conn.FlushWithContext(call)
		cancel()
		switch {
		case err == nil:
			c.recordActivity()
		case age(c.activity.Load().last) > deadAfter && ctx.Err() == nil:
			c.Log.Warn("control plane: the control node has stopped responding", "server", c.conn.ConnectedAddr())
			c.tries.Store(int64(server + 1)) // not the same one first
			_ = c.conn.ForceReconnect()      // fails only if closed
		}
	}
}

// server returns the index in Servers of the connected control node, or -1.
func (c *Client) server() int {
	at := c.conn.ConnectedUrl()
	return slices.IndexFunc(c.Servers, func(s string) bool { return natsURL(s) == at })
}

// settle moves to the nearest control node through which the log can be reached, at intervals,
// until ctx ends. Without it, a node would stay far away after the fleet starts, and after each
// upgrade of a control node.
func (c *Client) settle(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settleEvery + rand.N(settleEvery/3)): // nodes check at different times
		}
		at := c.server()
		if at < 0 {
			continue
		}
		for i := range c.Servers {
			good := false
			if i == at {
				good = confirms(ctx, c.conn, c.js)
			} else {
				good = c.reaches(ctx, i)
			}
			if !good {
				continue
			}
			if i != at {
				c.Log.Info("control plane: switching to a nearer control node, or to one that has the log", "server",
					c.Servers[i])
				c.move(ctx, i)
			}
			break
		}
	}
}

// hasLog reports whether the log answers on a connection, with a majority or without.
func hasLog(ctx context.Context, js jetstream.JetStream) bool {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	_, err := js.Stream(ctx, purgeStream)
	return err == nil
}

// reaches reports whether the log can be reached through Servers[i].
func (c *Client) reaches(ctx context.Context, i int) bool {
	conn, err := nats.Connect(natsURL(c.Servers[i]), append(c.options(), nats.NoReconnect())...)
	if err != nil {
		return false
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	return err == nil && confirms(ctx, conn, js)
}

// confirms reports whether a majority of the control nodes can be reached on a connection.
func confirms(ctx context.Context, conn *nats.Conn, js jetstream.JetStream) bool {
	queryCtx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	_, err := queryEnd(queryCtx, conn, nil)
	if errors.Is(err, nats.ErrNoResponders) { // an earlier version
		return hasLog(ctx, js)
	}
	return err == nil
}

// hold prevents a move to another control node until release is called. It is for calls that nobody
// retries if their connection ends.
func (c *Client) hold() (release func()) {
	c.calls.RLock()
	return c.calls.RUnlock
}

// move connects to Servers[i], between the calls that hold the client.
func (c *Client) move(ctx context.Context, i int) {
	c.calls.Lock()
	defer c.calls.Unlock()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	anew := c.connected()
	c.tries.Store(int64(i))
	if c.conn.ForceReconnect() != nil {
		return // closed
	}
	select {
	case <-anew:
	case <-ctx.Done():
	}
}

// connected returns a channel that is closed when the next connection is made.
func (c *Client) connected() <-chan struct{} {
	return *c.anew.Load()
}
