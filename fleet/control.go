package fleet

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// The roles of nodes, as certificates have them.
const (
	RoleEdge    = "edge"
	RoleGeoDNS  = "geodns"
	RoleControl = "control"
	RoleAdmin   = "admin" // of commands, which run on no node
)

// Subjects and buckets that nodes share.
const (
	purgeStream = "PURGES"
	// The log has one subject below this for each site, and one for purges of several sites. All
	// are in one order.
	purgeSubject = "purge"
	leaseBucket  = "leases" // by node
	drainBucket  = "drain"  // by node

	certificateBucket = "certificates" // by key of the Vault; only edges read it
	challengeBucket   = "challenges"   // by name and value; written by edges, read by name servers
)

// Control is a control node: an embedded NATS server with JetStream, which replicates its streams
// among all nodes with the role. Its fields are set before Listen.
type Control struct {
	Node    string
	Addr    string      // for edges and name servers
	Cluster string      // for other control nodes
	Peers   []string    // Cluster addresses of the other control nodes; none means that it is alone
	Others  []string    // Addr of the other control nodes
	Turn    int         // the node's index among all control nodes, from 0; see takeTurns
	Dir     string      // folder of the data
	TLS     *tls.Config // from Key.TLS
	Log     *slog.Logger
	Digest  Digest // of the reports of all nodes; nil means none

	server     atomic.Pointer[server.Server]
	gate       *gate
	secret     string                 // password of the process's own connections to the server
	group      string                 // group of control nodes that this one is in; "" means none
	fresh      bool                   // whether the group has had no leader yet, as far as this node knows
	converting *conversion            // what is being converted; nil means nothing
	open       chan struct{}          // closed once clients may connect
	logGroup   atomic.Pointer[string] // Raft group of the local copy of the log; "" means none, nil unknown
	noSync     bool                   // for benchmarks, which fill the log first
	floor      atomic.Int64           // for tests: replaces the floor of Room
	rooms      rooms
	beats      atomic.Pointer[beats]       // nil while this node does not serve
	failed     atomic.Pointer[atomic.Bool] // whether the server failed to write something
	older      bool                        // for tests: behave as a version without the roster and reports
	onStep     func(string)
}

// maxPurge is the size limit of a purge in bytes.
const maxPurge = 8 << 20

// maxStore is more than all streams together can use.
const maxStore = 1 << 40

// controlStart bounds the time that the embedded server takes to listen.
const controlStart = 20 * time.Second

// Listen starts the server. It doesn't wait for a majority of the control nodes.
func (c *Control) Listen(ctx context.Context) error {
	c.secret, c.open = rand.Text(), make(chan struct{})
	if err := os.MkdirAll(c.Dir, 0o750); err != nil {
		return fmt.Errorf("control node: %w", err)
	}
	if err := c.settle(ctx); err != nil {
		return fmt.Errorf("control node: %w", err)
	}
	if c.converting == nil {
		close(c.open)
	}
	if err := c.start(); err != nil {
		return err
	}
	var err error
	// permit decides by the roles; this only verifies certificates.
	if c.gate, err = listenGate(ctx, c.Addr, withRole(c.TLS, ""), c); err != nil {
		c.halt()
		return fmt.Errorf("control listener: %w", err)
	}
	return nil
}

// start starts the server. Its only clients come through the gate.
func (c *Control) start() error {
	opts := &server.Options{
		ServerName: c.Node, NoSigs: true, NoLog: false, AuthTimeout: 6,
		// The server's own listener accepts nobody. Without one, the server would not connect to
		// other control nodes.
		Host: "127.0.0.1", Port: server.RANDOM_PORT,
		CustomClientAuthentication: permit{c},
		JetStream:                  true, StoreDir: c.Dir, SyncAlways: !c.noSync,
		// By default NATS takes three quarters of the space that is free at the start, and refuses
		// streams with bounds beyond that. See Room.
		JetStreamMaxStore: maxStore,
		// Per stream. NATS's default is 1000, and a fleet may have more nodes.
		JetStreamLimits: server.JSLimitOpts{DefaultMaxConsumers: maxGateConns},
		MaxPayload:      maxPurge, MaxSubs: maxNodeSubs, MaxSubTokens: 16, PingInterval: 5 * time.Second,
		MaxPingsOut: 2, WriteDeadline: 10 * time.Second,
		// the gate closes connections of nodes that don't read
		WriteTimeout:           server.WriteTimeoutPolicyRetry,
		DisableJetStreamBanner: true,
	}
	if c.group != "" {
		host, port, err := hostPort(c.Cluster)
		if err != nil {
			return fmt.Errorf("control cluster listener: %w", err)
		}
		opts.Cluster = server.ClusterOpts{Name: c.group, Host: host, Port: port,
			TLSConfig: c.takeTurns(withRole(c.TLS, RoleControl)), TLSTimeout: 5, AuthTimeout: 6, NoAdvertise: true,
			PingInterval: 2 * time.Second, MaxPingsOut: 2, PoolSize: 1}
		// Connect to a missing node each second. NATS's backoff grows to 30 s, which kept nodes
		// apart for as long after an outage as it had lasted.
		opts.ReconnectErrorReports = 60
		// NATS uses the number of routes as the number of nodes that a first election needs. So
		// list all nodes, including this one.
		opts.Routes = []*url.URL{c.self()}
		for _, p := range c.Peers {
			opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats-route", Host: p})
		}
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("start the control server: %w", err)
	}
	failed := new(atomic.Bool)
	c.failed.Store(failed)
	s.SetLoggerV2(natsLog{c.Log.With("part", "control"), failed}, false, false, false)
	c.server.Store(s)
	s.Start()
	if !s.ReadyForConnections(controlStart) {
		c.halt()
		return fmt.Errorf("the control server did not start within %v: is %s free, and %s writable?", controlStart,
			c.Cluster, c.Dir)
	}
	return nil
}

// self returns the URL of the node's own cluster listener.
func (c *Control) self() *url.URL {
	host, port, _ := net.SplitHostPort(c.Cluster) // checked in start
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return &url.URL{Scheme: "nats-route", Host: net.JoinHostPort(host, port)}
}

// turnTime is longer than two control nodes take to connect to each other over any ocean.
const turnTime = 700 * time.Millisecond

// takeTurns makes a control node wait in the TLS handshake of connections to other control nodes.
// All nodes connect to all others. If two connect to each other at the same time, each may close
// the connection that the other one keeps. NATS varies its next attempt by a tenth of a second
// only, so over an ocean this repeats: it went on for a minute in tests. The last of five nodes
// waits for less than TLSTimeout.
func (c *Control) takeTurns(conf *tls.Config) *tls.Config {
	own, wait := &conf.Certificates[0], time.Duration(c.Turn)*turnTime
	conf.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		select {
		case <-time.After(wait):
			return own, nil
		case <-info.Context().Done():
			return nil, info.Context().Err()
		}
	}
	return conf
}

// Serve creates the log, the registry and the other buckets, unless they exist. It stops the server
// when ctx ends.
func (c *Control) Serve(ctx context.Context) error {
	var work sync.WaitGroup
	work.Go(c.gate.serve)
	err := c.serve(ctx)
	c.gate.close()
	work.Wait()
	c.halt()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// serve runs the server, and starts it again each time that its log ends.
func (c *Control) serve(ctx context.Context) error {
	for {
		run, end := context.WithCancelCause(ctx)
		var work sync.WaitGroup
		work.Go(func() { c.watchLog(run, end) })
		err := c.serveOnce(run)
		disabled := errors.Is(context.Cause(run), errDisabled)
		end(nil)
		work.Wait()
		if !disabled || ctx.Err() != nil {
			return err
		}
		if err := c.revive(ctx); err != nil {
			return err
		}
	}
}

// serveOnce runs one server until ctx ends.
func (c *Control) serveOnce(ctx context.Context) error {
	if c.group != "" {
		if err := c.gather(ctx); err != nil {
			return err
		}
	}
	if c.converting != nil {
		if err := c.finishConversion(ctx); err != nil {
			return err
		}
	}
	m, err := c.newMembership()
	if err != nil {
		return err
	}
	defer m.close()
	reader, err := c.newLogReader()
	if err != nil {
		return err
	}
	all, err := c.newRoster()
	if err != nil {
		return err
	}
	told, err := c.newReports()
	if err != nil {
		return err
	}
	answers := map[string]func(context.Context) error{"the end of the purge log": reader.serve,
		"the registry": all.serve, "reports": told.serve, "full disks": c.watchRoom, "elections": c.elect}
	if c.older {
		delete(answers, "the registry")
		delete(answers, "reports")
	}
	reading, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	for what, serve := range answers {
		work.Go(func() {
			if err := serve(reading); err != nil {
				c.Log.Error("control plane: can't answer queries about "+what, "error", err)
			}
		})
	}
	defer work.Wait()
	defer stop()
	if removed, err := c.keep(ctx, m.removed); err != nil || !removed {
		return err
	}
	return c.leave(ctx)
}

// keep creates what doesn't exist yet, and waits until ctx ends or the node is removed.
func (c *Control) keep(ctx context.Context, gone <-chan struct{}) (removed bool, err error) {
	own := &Client{Node: c.Node, Servers: []string{c.LocalAddr().String()}, TLS: c.TLS, Log: c.Log}
	if err := own.Dial(); err != nil {
		return false, err
	}
	defer own.Close()
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { own.Create(ctx, min(1+len(c.Peers), maxReplicas)) })
	defer work.Wait()
	defer cancel()
	select {
	case <-gone:
		return true, nil
	case <-ctx.Done():
		return false, nil
	}
}

// LocalAddr returns the address for edges and name servers, after Listen.
func (c *Control) LocalAddr() net.Addr { return c.gate.listener.Addr() }

// nats returns the embedded server.
func (c *Control) nats() *server.Server { return c.server.Load() }

// halt stops the server.
func (c *Control) halt() {
	c.nats().Shutdown()
	c.nats().WaitForShutdown()
}

// did tells tests which step is done.
func (c *Control) did(step string) {
	if c.onStep != nil {
		c.onStep(step)
	}
}

func hostPort(addr string) (string, int, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return "", 0, err
	}
	if host == "" {
		host = "0.0.0.0"
		if l, err := net.Listen("tcp6", "[::1]:0"); err == nil { // both address families, where both exist
			l.Close()
			host = "::"
		}
	}
	if n == 0 {
		n = server.RANDOM_PORT
	}
	return host, n, nil
}

// permit decides what a client may do by its certificate, which the gate has verified.
type permit struct{ control *Control }

// Check implements server.Authentication: it gives a client the subjects of its roles.
func (p permit) Check(c server.ClientAuthentication) bool {
	if opts := c.GetOpts(); p.control.own(opts) {
		user := &server.User{Username: opts.Username}
		if opts.Username == userSystem {
			user.Account = p.control.nats().SystemAccount()
		}
		c.RegisterUser(user)
		return true
	}
	who, ok := p.control.gate.identity(c.GetOpts().Username)
	if !ok {
		return false
	}
	allow := permissions(who.node, who.roles, who.sites)
	if allow == nil {
		return false
	}
	if p.control.older {
		allow.Publish.Allow = slices.DeleteFunc(allow.Publish.Allow,
			func(subject string) bool { return strings.HasPrefix(subject, reportSubject) })
	}
	c.RegisterUser(&server.User{Username: who.node, Permissions: allow})
	return true
}

// permissions returns the subjects that a node may use. sites are the only sites that it may purge;
// none means all. JetStream has a subject of its own for each kind of request.
func permissions(node string, roles, sites []string) *server.Permissions {
	has := func(r string) bool { return slices.Contains(roles, r) }
	publish := []string{"$JS.API.INFO", "$JS.ACK.>", "$JS.FC.>", endSubject, rosterSubject, reportsSubject}
	streams := []string{purgeStream, "KV_" + leaseBucket, "KV_" + drainBucket}
	if has(RoleEdge) {
		streams = append(streams, "KV_"+certificateBucket)
	}
	if has(RoleEdge) || has(RoleGeoDNS) {
		streams = append(streams, "KV_"+challengeBucket)
	}
	for _, stream := range streams {
		publish = append(publish, "$JS.API.STREAM.INFO."+stream, "$JS.API.STREAM.MSG.GET."+stream,
			"$JS.API.DIRECT.GET."+stream, "$JS.API.DIRECT.GET."+stream+".>")
		for _, verb := range []string{"CREATE", "DELETE", "INFO", "MSG.NEXT"} {
			publish = append(publish, "$JS.API.CONSUMER."+verb+"."+stream, "$JS.API.CONSUMER."+verb+"."+stream+".>")
		}
	}
	if has(RoleControl) {
		// Control nodes create this bucket, but must not read it.
		publish = append(publish, "$JS.API.STREAM.INFO.KV_"+certificateBucket,
			"$JS.API.STREAM.INFO.KV_"+challengeBucket,
			"$JS.API.STREAM.CREATE.*", // no permissions apply to what a stream gets from other streams or republishes
			"$JS.API.STREAM.UPDATE.*") // to add replicas; the node's own server may change streams anyway
	}
	if has(RoleEdge) {
		publish = append(publish, "$KV."+certificateBucket+".>", "$KV."+challengeBucket+".>")
	}
	if has(RoleEdge) || has(RoleGeoDNS) || has(RoleControl) {
		publish = append(publish, reportSubject+"."+node)
	}
	if has(RoleControl) || has(RoleAdmin) {
		publish = append(publish, membersSubject, removeSubject)
	}
	purges := []string{purgeSubject + ".>"}
	if len(sites) > 0 {
		purges = nil
	}
	for _, s := range sites {
		purges = append(purges, subjectOf(s))
	}
	switch {
	case has(RoleAdmin), has(RoleEdge), has(RoleControl):
		publish = append(append(publish, purges...), "$KV."+leaseBucket+"."+node, "$KV."+drainBucket+".>")
	case has(RoleGeoDNS):
		publish = append(publish, "$KV."+leaseBucket+"."+node)
	default:
		return nil
	}
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: publish},
		// Not the subjects of the streams. If somebody subscribed to those, a consumer of another
		// stream could deliver to them.
		Subscribe: &server.SubjectPermission{Allow: []string{inbox(node) + ".>"}},
	}
}

var errNoControl = errors.New("the control plane does not answer")

// encodeToken encodes a text as one token of a subject.
func encodeToken(s string) string { return hex.EncodeToString([]byte(s)) }

func decodeToken(s string) string {
	b, err := hex.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(b)
}
