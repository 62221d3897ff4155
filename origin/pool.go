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

// maxServers is how many servers a pool may have: a set of them is the bits of one word.
const maxServers = 64

// Server is one origin server.
type Server struct {
	URL    *url.URL // scheme http or https, host and port; nothing else counts
	Weight int      // share of the requests; 0 means 1
	Backup bool     // used only when no other is healthy
	// ServerName is sent as SNI and verified, and the server is known by it; "" means what the Pool
	// says.
	ServerName string
	// Self marks the place of the caller among the servers of a ring: when a pick falls on it,
	// Fetch returns ErrSelf.
	Self bool
}

// Pool is the origin of a site. The fields are set before Start and not changed after.
type Pool struct {
	Name    string // of the site, for the log
	Servers []Server
	Balance Balance
	// Host is sent as Host and, over TLS, as SNI. ClientHost means the Host that the request has,
	// and the server's own name as SNI. "" means the server's own name for an https server that is
	// given by one, and ClientHost for all others.
	Host string
	// SNI is what https servers are sent as SNI, and what their certificates are verified for, if
	// that is not what Host says.
	SNI string
	// Flags says that the pool is made from the flags of a command, which hints name then, in place
	// of keys of a fleet file.
	Flags     bool
	Health    *Health // nil means no probes
	Retries   int     // further servers that are tried; the fleet file says 2
	SlowStart time.Duration
	// Hedge is after how long without a header block a request that may be sent twice is sent to a
	// second server too, whose answer is taken if it comes first; 0 means never.
	Hedge time.Duration

	ConnectTimeout      time.Duration // for TCP; 0 means 5 s
	TLSTimeout          time.Duration // for the handshake; 0 means ConnectTimeout
	FirstByteTimeout    time.Duration // from the request sent to the header block; 0 means 30 s
	BetweenBytesTimeout time.Duration // for the next bytes of a body, either way; 0 means a minute
	// PingInterval is how long a connection of HTTP/2 may be silent before it is asked whether it
	// is still there, and the answer may take; 0 means 15 s.
	PingInterval time.Duration

	MaxConnections int           // to one server, and by HTTP/1 so many requests; 0 means no limit of their own
	MaxRequests    int           // under way at one server, and so many tunnels; 0 means 1024
	Queue          int           // requests that wait for a server with room; 0 means 1024
	QueueTimeout   time.Duration // for that; 0 means 5 s

	TLS *tls.Config // roots and the client's certificate; nil means the system's roots and none
	// Secret is a header field that every request to a server has, so that it can refuse who has
	// not; "" as name means none.
	Secret Field
	// Relays says that the servers are edges that pass on what an origin answered: a 5xx is no
	// failure of theirs.
	Relays bool
	// Dial connects to an address; nil means a resolver that heeds TTLs and tries all addresses of
	// a name.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Log  *slog.Logger // nil means slog.Default

	nameserver string // "ip:port" that names are asked at instead of the system's; for tests

	cancel  context.CancelFunc
	started time.Time
	work    sync.WaitGroup // probes and resolvers

	// mu guards what follows, and the backends.
	mu            sync.Mutex
	all           []*backend
	panic         bool // most servers look unhealthy
	budget        budget
	queue         []*waiter
	streams       int   // of those in the queue, that stream
	clients       tally // of those in the queue
	retries       uint64
	hedges        uint64
	refused       uint64 // by the queue: it was full, or the wait too long
	limited       uint64 // because their client had its share
	clientFaults  uint64 // requests that failed by the fault of their clients
	closed        bool
	lastServerErr error // why the last server that is down is
}

// Field is a header field.
type Field struct{ Name, Value string }

// Start makes the Pool ready. Close ends what it begins.
func (p *Pool) Start() error {
	p.setDefaults()
	if len(p.Servers) == 0 {
		return errors.New("no origin server")
	}
	if len(p.Servers) > maxServers {
		return fmt.Errorf("%d origin servers: the limit is %d", len(p.Servers), maxServers)
	}
	for i, s := range p.Servers {
		if s.URL == nil || s.URL.Host == "" || s.URL.Scheme != "http" && s.URL.Scheme != "https" {
			return fmt.Errorf("origin server %q: want http://host[:port] or https://host[:port]", s.URL)
		}
		p.all = append(p.all, &backend{Server: s, index: i, addr: address(s.URL), host: p.hostFor(s), tlsName: p.tlsNameFor(s),
			weight: float64(max(1, s.Weight)), hash: xxhash.Sum64String(s.URL.Scheme + "://" + s.URL.Host + s.ServerName),
			probeSoon: make(chan struct{}, 1), clients: tally{}, tunnelClients: tally{}, counts: Counts{Failures: map[string]uint64{}}})
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
			b.resolver = &resolver{host: host, nameserver: p.nameserver, log: p.Log, ready: make(chan struct{}), onChange: func() {
				// Connections to addresses of before get no new requests, and end when they are
				// idle.
				b.transport.Swap(p.newTransport(b, true)).CloseIdleConnections()
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

// setDefaults gives the fields that are zero their meaning.
func (p *Pool) setDefaults() {
	for _, d := range []struct {
		to   *time.Duration
		zero time.Duration
	}{{&p.ConnectTimeout, 5 * time.Second}, {&p.FirstByteTimeout, 30 * time.Second}, {&p.BetweenBytesTimeout, time.Minute},
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

// address is where to connect for a URL.
func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// Close ends probes and resolvers, and closes the connections that are idle. Requests that are
// under way go on.
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
			t.CloseIdleConnections()
		}
	}
}

// retryable reports whether a request may be sent twice (RFC 9110, 9.2.2), and can be.
func retryable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return r.Body == nil || r.Body == http.NoBody
	}
	return false
}
