package fleet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// gate is the listener of a control node for edges, name servers and commands. It takes the TLS
// handshake, reads the node's name and roles from its certificate, and passes what the node sends
// to the embedded NATS server, frame by frame, if it is something that a node has to send (see
// frames).
//
// NATS checks which subjects a client publishes to. It does not check the subject on which a client
// wants the answer, and the server itself sends that answer: with its own rights, and with content
// that the client chose. A name server could write a message into its own lease, ask for that
// message with the log of purges as the place for the answer, and so purge. Every frame is
// therefore held to an allow list here, before NATS sees it.
type gate struct {
	control  *Control
	listener net.Listener
	tls      *tls.Config

	inside internalClient
	ctx    context.Context // ends with close
	end    context.CancelFunc

	conns   sync.WaitGroup
	mu      sync.Mutex
	open    map[net.Conn]struct{}
	early   map[netip.Prefix]int  // connections that are in their handshake, by network
	waiting int                   // number of these connections
	names   map[string]identity   // identity of each connection, by the user name that the gate gave to it
	nodes   map[string]*allowance // by the name of the node
	ended   bool
}

// identity is what a certificate of the fleet says about a node.
type identity struct {
	node  string
	roles []string
	sites []string // the only sites that it may purge; none means all
}

const (
	// maxGateConns is how many nodes may be connected. That is many more than any fleet has.
	maxGateConns = 8192
	// maxEarly is how many connections of one network (an IPv4 address or an IPv6 /64) may be in
	// their handshake, and maxWaiting how many of all networks. So clients without a certificate
	// can't use up the places of nodes.
	maxEarly   = 64
	maxWaiting = maxGateConns / 4
	// gateHandshake bounds the time until NATS knows the client.
	gateHandshake = 5 * time.Second
	// gateWrite is how long a client may read nothing of what is sent to it.
	gateWrite = 10 * time.Second
	// helloWait is how long the gate waits for a client's first bytes before it speaks first, as
	// clients of Kaiku 0.1 expect. Later versions start with the TLS handshake, and read nothing
	// before it.
	helloWait = 500 * time.Millisecond
)

// listenGate binds the address.
func listenGate(ctx context.Context, addr string, conf *tls.Config, c *Control) (*gate, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	g := &gate{control: c, listener: l, tls: conf, open: map[net.Conn]struct{}{},
		early: map[netip.Prefix]int{}, names: map[string]identity{}, nodes: map[string]*allowance{}}
	g.ctx, g.end = context.WithCancel(context.Background())
	return g, nil
}

// serve accepts connections until close.
func (g *gate) serve() {
	for {
		c, err := g.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // the process has no file descriptors left
			continue
		}
		if !g.add(c) {
			c.Close()
			continue
		}
		go func() {
			defer g.conns.Done()
			defer g.remove(c)
			if err := g.pass(c); errors.Is(err, errFrame) {
				g.control.Log.Warn("control plane: connection closed", "from", c.RemoteAddr(), "error", err)
			}
		}()
	}
}

// close closes the listener and all connections, and waits for them.
func (g *gate) close() {
	g.listener.Close()
	g.mu.Lock()
	g.ended = true
	for c := range g.open {
		c.Close()
	}
	g.mu.Unlock()
	g.end()
	g.conns.Wait()
	g.inside.close()
}

func (g *gate) add(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	from := networkOf(c.RemoteAddr())
	if g.ended || len(g.open) >= maxGateConns || g.waiting >= maxWaiting || g.early[from] >= maxEarly {
		return false
	}
	g.open[c] = struct{}{}
	g.early[from]++
	g.waiting++
	g.conns.Add(1) // under the lock, because close may wait as soon as the lock is free
	return true
}

// settled records that a handshake is over, whether it succeeded or not.
func (g *gate) settled(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	from := networkOf(c.RemoteAddr())
	g.waiting--
	if g.early[from]--; g.early[from] == 0 {
		delete(g.early, from)
	}
}

// networkOf returns the network that a connection comes from. Whoever has one IPv6 address has the
// whole /64.
func networkOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	network, _ := ip.Prefix(min(ip.BitLen(), 64))
	return network
}

func (g *gate) remove(c net.Conn) {
	c.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, c)
}

// pass passes one connection on until either side ends it.
func (g *gate) pass(raw net.Conn) error {
	client, err := g.handshake(raw)
	g.settled(raw)
	if err != nil {
		return err
	}
	if err := g.control.untilOpen(); err != nil {
		return err
	}
	inside, err := g.control.nats().InProcessConn()
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := inside.SetDeadline(time.Now().Add(gateHandshake)); err != nil {
		return err
	}
	in, out := bufio.NewReaderSize(client, 16<<10), bufio.NewReaderSize(inside, 16<<10)
	who, user := identityOf(client.ConnectionState()), rand.Text()
	g.register(user, who)
	defer g.unregister(user)
	allowed := g.addConn(who.node, raw)
	defer g.removeConn(allowed, raw)
	if err := introduce(in, inside, out, user); err != nil {
		return err
	}
	if err := errors.Join(raw.SetDeadline(time.Time{}), inside.SetDeadline(time.Time{})); err != nil {
		return err
	}
	var back sync.WaitGroup
	back.Go(func() {
		defer raw.Close()
		_, _ = io.Copy(timedWriter{client, raw}, out) // ends with either side
	})
	has := consumers{g, map[string][]string{}}
	err = (&frames{who: who, from: in, to: inside, has: has,
		spend:  func(cost int) error { return allowed.spend(g.ctx, cost) },
		refuse: g.control.refuses, sendRefusal: func(reply,
			why string) {
			g.inside.publish(g.control, reply, refused(why))
		},
		beat:       func(b beat) bool { return g.control.takeBeat(who.node, b) },
		sendAnswer: func(reply string, b []byte) { g.inside.publish(g.control, reply, b) }}).copy()
	has.end()
	raw.Close()
	inside.Close()
	back.Wait()
	return fmt.Errorf("node %s: %w", who.node, err)
}

// handshake does the TLS handshake, and sends the client the first line of a NATS server. It sends
// it in clear text, before the handshake, to a client that doesn't speak first.
func (g *gate) handshake(raw net.Conn) (*tls.Conn, error) {
	first := bufio.NewReaderSize(raw, 1024)
	if err := raw.SetReadDeadline(time.Now().Add(helloWait)); err != nil {
		return nil, err
	}
	_, err := first.Peek(1)
	waits := isTimeout(err)
	if err != nil && !waits {
		return nil, err
	}
	if err := raw.SetDeadline(time.Now().Add(gateHandshake)); err != nil {
		return nil, err
	}
	s := g.control.nats()
	hello := fmt.Appendf(nil, hello, s.ID(), s.Name(), s.ClusterName(), maxPurge)
	if waits {
		if _, err := raw.Write(hello); err != nil {
			return nil, err
		}
	}
	client := tls.Server(&bufferedConn{raw, first}, g.tls)
	if err := client.Handshake(); err != nil {
		return nil, err
	}
	if !waits {
		_, err = client.Write(hello)
		return client, err
	}
	return client, nil
}

// hello is the first line of a server, with the values that nodes need.
const hello = `INFO {"server_id":%q,"server_name":%q,"cluster":%q,"proto":1,"headers":true,"max_payload":%d,"jetstream":true,"tls_required":true}` + "\r\n"

// introduce reads the first lines of both sides. It passes the client's line on to the server with
// a user name from which permit knows the client.
func introduce(in *bufio.Reader, inside io.Writer, out *bufio.Reader, user string) error {
	if _, err := out.ReadSlice('\n'); err != nil {
		return fmt.Errorf("read the server's first line: %w", err)
	}
	connect, err := connectLine(in, user)
	if err != nil {
		return err
	}
	_, err = inside.Write(connect)
	return err
}

// connectLine reads a client's CONNECT, and returns the one for the server with the given user
// name.
func connectLine(in *bufio.Reader, user string) ([]byte, error) {
	line, err := readLine(in)
	if err != nil {
		return nil, fmt.Errorf("read CONNECT: %w", err)
	}
	text, ok := bytes.CutPrefix(line, []byte("CONNECT "))
	if !ok {
		return nil, errors.New("the client did not begin with CONNECT")
	}
	var connect struct {
		Verbose      bool   `json:"verbose"`
		Pedantic     bool   `json:"pedantic"` // a server takes a missing value as true
		Name         string `json:"name"`
		Lang         string `json:"lang"`
		Version      string `json:"version"`
		Protocol     int    `json:"protocol"`
		Echo         bool   `json:"echo"`
		Headers      bool   `json:"headers"`
		NoResponders bool   `json:"no_responders"`
		User         string `json:"user"`
	}
	if err := json.Unmarshal(text, &connect); err != nil {
		return nil, fmt.Errorf("read CONNECT: %w", err)
	}
	connect.User = user
	b, err := json.Marshal(connect)
	return append(append([]byte("CONNECT "), b...), "\r\n"...), err
}

func (g *gate) register(user string, who identity) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.names[user] = who
}

func (g *gate) unregister(user string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.names, user)
}

// identity returns the identity behind a user name that the gate gave to a connection.
func (g *gate) identity(user string) (identity, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id, ok := g.names[user]
	return id, ok
}

func identityOf(st tls.ConnectionState) identity {
	cert := st.PeerCertificates[0] // tls.RequireAndVerifyClientCert
	return identity{cert.Subject.CommonName, cert.Subject.OrganizationalUnit, sitesOf(cert)}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// bufferedConn is a connection of which some bytes were already read.
type bufferedConn struct {
	net.Conn
	read *bufio.Reader
}

// Read implements io.Reader.
func (c *bufferedConn) Read(b []byte) (int, error) { return c.read.Read(b) }

// timedWriter writes to a client. It fails if the client takes nothing within gateWrite.
type timedWriter struct {
	to  io.Writer
	raw net.Conn
}

// Write implements io.Writer.
func (w timedWriter) Write(b []byte) (int, error) {
	if err := w.raw.SetWriteDeadline(time.Now().Add(gateWrite)); err != nil {
		return 0, err
	}
	return w.to.Write(b)
}
