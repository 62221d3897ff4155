package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// maxServers is the maximum number of servers of a pool. Sets of servers are bit sets in one
// uint64.
const maxServers = 64

// Server is a server of a Pool.
type Server struct {
	URL    *url.URL // scheme http or https, host and port; the rest is ignored
	Weight int      // relative share of the requests; 0 means 1
	Backup bool     // gets requests only while no primary is healthy
	// ServerName is the SNI, the name to verify and the label of the server. "" means that the Pool
	// decides.
	ServerName string
	// Self marks the caller's own entry in a ring of edges. If it is chosen, Fetch returns ErrSelf.
	Self bool
}

// Pool is the origin of a site. Its fields must not change after Start. Its methods are safe for
// concurrent use.
type Pool struct {
	Name    string // of the site, for logs
	Servers []Server
	Balance Balance
	// Host is sent as Host and, over TLS, as SNI. ClientHost means the client's Host, with the
	// server's own name as SNI. "" means the server's own name if its URL is https with a DNS name,
	// else ClientHost.
	Host string
	// SNI is the SNI for https servers and the name that their certificates must have. "" means
	// that Host decides.
	SNI string
	// Flags means that the pool was configured by command-line flags. Hints then name flags instead
	// of keys of the fleet file.
	Flags  bool
	Health *Health // nil disables probes
	// Retries is the maximum number of further servers that a request is sent to. The fleet file's
	// default is 2.
	Retries int
	// SlowStart is how long the weight of a server that comes back takes to rise to its full value.
	// 0 means 10 s.
	SlowStart time.Duration
	// Hedge is how long Fetch waits for a response header before it sends a retryable request to a
	// second server too. The first response is used. 0 disables hedging.
	Hedge time.Duration

	ConnectTimeout      time.Duration // for TCP; 0 means 5 s
	TLSTimeout          time.Duration // for the TLS handshake; 0 means ConnectTimeout
	FirstByteTimeout    time.Duration // from the request's end to the response header; 0 means 30 s
	BetweenBytesTimeout time.Duration // between two reads or writes of a body; 0 means 1 min
	// PingInterval is how long an HTTP/2 connection may be silent before a ping is sent, and how
	// long the reply to the ping may take. 0 means 15 s.
	PingInterval time.Duration

	// MaxConnections limits the connections to one server. Over HTTP/1 it also limits requests. 0
	// means no limit.
	MaxConnections int
	// MaxRequests limits the concurrent requests at one server, and likewise the concurrent
	// tunnels. 0 means 1024.
	MaxRequests  int
	Queue        int           // requests that may wait for a free place; 0 means 1024
	QueueTimeout time.Duration // how long a request waits in the queue; 0 means 5 s

	// TLS has the roots and the client certificate. nil means the system's roots and no client
	// certificate.
	TLS *tls.Config
	// Secret is a header field that is added to every request, so that servers can reject requests
	// from others. An empty name disables it.
	Secret Field
	// S3 means that the servers are those of a private bucket. nil means that they are not.
	S3 *S3
	// Relays means that the servers are edges that pass on the origin's responses. A 5xx status is
	// then not a failure of the edge.
	Relays bool
	// Dial connects to addr. nil means a dialer that re-resolves names when their TTL expires and
	// tries all addresses of a name.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Log  *slog.Logger // nil means slog.Default()

	nameserver string // "ip:port" of the DNS server to use instead of the system's; for tests

	cancel  context.CancelFunc
	started time.Time
	work    sync.WaitGroup // probes and resolvers

	// mu guards the fields below and the backends.
	mu            sync.Mutex
	all           []*backend
	panic         bool // panic mode: most servers are unhealthy, so all are used
	budget        budget
	queue         []*waiter
	streams       int   // requests in the queue that a client may hold open
	clients       tally // requests of each client in the queue
	retries       uint64
	hedges        uint64
	refused       uint64 // requests refused because the queue was full, or that timed out in it
	limited       uint64 // requests refused because their client had used its share
	clientFaults  uint64 // requests that failed because of their client
	closed        bool
	lastServerErr error // the last error of any server
}

// Field is a header field.
type Field struct{ Name, Value string }

// Start sets defaults and begins probing and resolving. It returns an error if a server's URL is
// invalid, or if there are no servers or more than 64. Call Close to stop.
func (p *Pool) Start() error {
	p.setDefaults()
	if len(p.Servers) == 0 {
		return errors.New("the origin has no servers")
	}
	if len(p.Servers) > maxServers {
		return fmt.Errorf("%d origin servers: the limit is %d", len(p.Servers), maxServers)
	}
	for i, s := range p.Servers {
		if s.URL == nil || s.URL.Host == "" || s.URL.Scheme != "http" && s.URL.Scheme != "https" {
			return fmt.Errorf("origin server %q: want http://host[:port] or https://host[:port]", s.URL)
		}
		p.all = append(p.all, &backend{
			Server:        s,
			index:         i,
			addr:          address(s.URL),
			host:          p.hostFor(s),
			tlsName:       p.tlsNameFor(s),
			weight:        float64(max(1, s.Weight)),
			hash:          xxhash.Sum64String(s.URL.Scheme + "://" + s.URL.Host + s.ServerName),
			probeSoon:     make(chan struct{}, 1),
			clients:       tally{},
			tunnelClients: tally{},
			counts:        Counts{Failures: map[string]uint64{}},
		})
	}
	p.clients = tally{}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.started = cancel, time.Now()
	for _, b := range p.all {
		if b.Self {
			continue
		}
		b.transport.Store(p.newTransport(b, true))
		host := b.URL.Hostname()
		if _, err := netip.ParseAddr(host); err != nil && p.Dial == nil {
			b.resolver = &resolver{host: host, nameserver: p.nameserver, log: p.Log, ready: make(chan struct{}),
				onChange: func() {
					// Connections to old addresses get no new requests and close when they become
					// idle.
					b.transport.Swap(p.newTransport(b, true)).close()
					b.spares.trim(0)
				}}
			p.work.Go(func() { b.resolver.refresh(ctx) })
		}
		if p.Health != nil {
			p.work.Go(func() { p.probe(ctx, b) })
		}
	}
	return nil
}

// setDefaults replaces zero fields with their defaults.
func (p *Pool) setDefaults() {
	for _, d := range []struct {
		to   *time.Duration
		zero time.Duration
	}{{&p.ConnectTimeout, 5 * time.Second}, {&p.FirstByteTimeout, 30 * time.Second},
		{&p.BetweenBytesTimeout, time.Minute},
		{&p.QueueTimeout, 5 * time.Second}, {&p.SlowStart, 10 * time.Second}, {&p.PingInterval, 15 * time.Second}} {
		if *d.to == 0 {
			*d.to = d.zero
		}
	}
	if p.TLSTimeout == 0 {
		p.TLSTimeout = p.ConnectTimeout
	}
	if p.MaxRequests == 0 {
		p.MaxRequests = 1024
	}
	if p.Queue == 0 {
		p.Queue = 1024
	}
	if p.Log == nil {
		p.Log = slog.Default()
	}
	if p.Health != nil {
		h := p.Health.withDefaults()
		p.Health = &h
	}
}

// address returns the host and port to connect to for u.
func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// Close stops probes and resolvers and closes idle connections. Requests that are under way
// continue.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	for _, b := range p.all {
		if b.readmitTimer != nil {
			b.readmitTimer.Stop()
		}
	}
	p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
	}
	p.work.Wait()
	for _, b := range p.all {
		b.spares.close()
		if t := b.transport.Load(); t != nil {
			t.close()
		}
	}
}

// retryable reports whether r may be sent more than once: its method is safe (RFC 9110, section
// 9.2.1) and it has no body.
func retryable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return r.Body == nil || r.Body == http.NoBody
	}
	return false
}
