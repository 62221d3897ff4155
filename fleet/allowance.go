package fleet

import (
	"context"
	"net"
	"slices"
	"sync"

	"golang.org/x/time/rate"

	"github.com/nats-io/nats.go"
)

// Limits of one node at a control node, over all its connections. They also bound what a stolen
// credential can do.
const (
	// maxNodeConns is how many connections a node may have. One more closes the oldest, which may
	// be left over from before an outage.
	maxNodeConns = 8
	// maxNodeConsumers is how many consumers of one stream a connection may have. One more deletes
	// the oldest.
	maxNodeConsumers = 16
	// maxNodeSubs is how many subscriptions a connection may have.
	maxNodeSubs = 256
	// nodeRate is how many bytes a second a node may send, and nodeBurst how many at once. Each
	// frame counts as at least frameCost bytes, and each request to JetStream as requestCost more.
	nodeRate    = 4 << 20
	nodeBurst   = 16 << 20
	frameCost   = 1 << 10
	requestCost = 4 << 10
	// reportsCost is what a question for the reports of all nodes costs.
	reportsCost = 64 << 10
)

// allowance is what one node uses of these limits. The gate's mu guards all fields but rate.
type allowance struct {
	rate  *rate.Limiter
	conns []net.Conn // the oldest first
}

// addConn adds a connection of a node. There are at most as many allowances as credentials.
func (g *gate) addConn(node string, c net.Conn) *allowance {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.nodes[node]
	if a == nil {
		a = &allowance{rate: rate.NewLimiter(nodeRate, nodeBurst)}
		g.nodes[node] = a
	}
	if len(a.conns) == maxNodeConns {
		a.conns[0].Close()
		a.conns = slices.Delete(a.conns, 0, 1)
	}
	a.conns = append(a.conns, c)
	return a
}

// removeConn removes a connection that has ended.
func (g *gate) removeConn(a *allowance, c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.conns = slices.DeleteFunc(a.conns, func(other net.Conn) bool { return other == c })
}

// spend waits until the node may send cost bytes.
func (a *allowance) spend(ctx context.Context, cost int) error {
	return a.rate.WaitN(ctx, min(cost, nodeBurst))
}

// consumers are the consumers of one connection, by stream, the oldest first. NATS keeps a consumer
// for a minute after its client's last sign of life. These end with their connection.
type consumers struct {
	gate *gate
	have map[string][]string
}

// add records a consumer that is about to be made.
func (c *consumers) add(stream, name string) {
	if c.gate == nil {
		return
	}
	list := slices.DeleteFunc(c.have[stream], func(n string) bool { return n == name })
	if len(list) == maxNodeConsumers {
		c.gate.inside.deleteConsumer(c.gate.control, stream, list[0])
		list = slices.Delete(list, 0, 1)
	}
	c.have[stream] = append(list, name)
}

// remove forgets a consumer that the node deletes.
func (c *consumers) remove(stream, name string) {
	if c.gate == nil {
		return
	}
	c.have[stream] = slices.DeleteFunc(c.have[stream], func(n string) bool { return n == name })
}

// end deletes all consumers.
func (c *consumers) end() {
	for stream, list := range c.have {
		for _, name := range list {
			c.gate.inside.deleteConsumer(c.gate.control, stream, name)
		}
	}
}

// internalClient is the gate's own connection to the server. It is made when it is first needed.
type internalClient struct {
	mu   sync.Mutex
	conn *nats.Conn
}

// deleteConsumer asks the server to delete a consumer, and doesn't wait. If that fails, the
// consumer ends a minute after its last client.
func (i *internalClient) deleteConsumer(c *Control, stream, name string) {
	i.do(c, func(conn *nats.Conn) error {
		return conn.PublishRequest("$JS.API.CONSUMER.DELETE."+stream+"."+name, "_INBOX.gate", nil)
	})
}

// publish sends a message to a node.
func (i *internalClient) publish(c *Control, subject string, b []byte) {
	i.do(c, func(conn *nats.Conn) error { return conn.Publish(subject, b) })
}

func (i *internalClient) do(c *Control, do func(*nats.Conn) error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.conn == nil || i.conn.IsClosed() {
		conn, _, err := inside(c.nats(), userFleet, c.secret)
		if err != nil {
			return // the server stops
		}
		i.conn = conn
	}
	_ = do(i.conn) // as above
}

func (i *internalClient) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.conn != nil {
		i.conn.Close()
	}
}
