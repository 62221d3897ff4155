package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/geodns"
	"github.com/kaiku-cdn/kaiku/origin"
)

// siteSet has the sites of an edge, and the pools of their origins.
type siteSet struct {
	sites []*site.Site
	pools map[string]*origin.Pool // by madeFrom or edgesFrom

	countries *geodns.Countries // nil if no rule needs them
}

// siteMaker makes the sites of a fleet file for one node.
type siteMaker struct {
	fleet *config.Fleet
	node  *config.Node
	peers *tls.Config // for connections between edges; nil means that there are none
	dial  Dialer      // to origins; nil means the default
	log   *slog.Logger
	// before is the previous set. A pool with the same settings is kept, with its state and its
	// connections.
	before siteSet
	made   siteSet
}

// make makes the sites. If it fails, it closes everything that it made.
func (m *siteMaker) make() (siteSet, error) {
	m.made.pools = map[string]*origin.Pool{}
	if m.fleet.UsesCountries() {
		var err error
		m.made.countries, err = geodns.OpenCountries(m.fleet.LocalFile(m.fleet.GeoDNS.GeoIP), m.before.countries)
		if err != nil {
			return siteSet{}, err
		}
	}
	for i := range m.fleet.Sites {
		if err := m.site(&m.fleet.Sites[i]); err != nil {
			m.made.close(m.before)
			return siteSet{}, fmt.Errorf("site %s: %w", m.fleet.Sites[i].Name, err)
		}
	}
	return m.made, nil
}

// close closes the pools that are not in another set.
func (s siteSet) close(other siteSet) {
	for key, p := range s.pools {
		if other.pools[key] != p {
			p.Close()
		}
	}
}

func (m *siteMaker) site(s *config.Site) error {
	site := &site.Site{Name: s.Name, MaxObject: int64(s.Cache.MaxObject), Slice: int64(s.Cache.Slice),
		IgnoreQuery: s.Cache.IgnoreQuery,
		Policy: httpcache.Policy{
			DefaultTTL:           time.Duration(s.Cache.DefaultTTL),
			SetCookie:            httpcache.SetCookie(s.Cache.SetCookie),
			StaleWhileRevalidate: time.Duration(s.Cache.StaleWhileRevalidate),
			StaleIfError:         time.Duration(s.Cache.StaleIfError),
		}}
	site.Hosts, site.ServerTiming = config.LowerHosts(s.Hosts), s.ServerTiming
	for _, name := range s.Origin.PassFields {
		site.PassFields = append(site.PassFields, http.CanonicalHeaderKey(name))
	}
	site.Compress = s.Compress.Config()
	site.Redirect, site.HSTS = s.HTTPS.Redirect, s.HTTPS.HSTS.Value()
	if m.made.countries != nil {
		site.Country = m.made.countries.Of
	}
	var err error
	if site.Rules, err = m.fleet.SiteRules(s); err != nil {
		return err
	}
	if site.Origin, err = m.route(s, "", &s.Origin); err != nil {
		return err
	}
	for name, o := range s.Origins {
		r, err := m.route(s, name, &o)
		if err != nil {
			return fmt.Errorf("origin %s: %w", name, err)
		}
		if site.Origins == nil {
			site.Origins = map[string]*origin.Route{}
		}
		site.Origins[name] = r
	}
	m.made.sites = append(m.made.sites, site)
	return nil
}

// route makes the route to one of a site's origins. name is "" for the site's own.
func (m *siteMaker) route(s *config.Site, name string, o *config.Origin) (*origin.Route, error) {
	pool, err := poolOf(m.fleet, s, o)
	if err != nil {
		return nil, err
	}
	if name != "" {
		pool.Name += "/" + name
	}
	pool.Dial, pool.Log = m.dial, m.log
	from, err := madeFrom(m.fleet, pool.Name, s, o)
	if err != nil {
		return nil, err
	}
	r := &origin.Route{}
	if r.Origin, err = m.start(from, pool); err != nil {
		return nil, err
	}
	if m.peers == nil || o.Shield == m.node.Name {
		return r, nil // the shield stands before everybody else, so that nobody stands before it
	}
	if ring := m.ring(); ring != nil {
		if r.Ring, err = m.start(edgesFrom(ring), ring); err != nil {
			return nil, err
		}
	}
	if o.Shield != "" {
		shield := m.edgePool("shield "+o.Shield, m.fleet.Node(o.Shield))
		if r.Shield, err = m.start(edgesFrom(shield), shield); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// madeFrom returns all settings of the pool of one of a site's origins: those of the fleet file,
// and the content of the files that it names.
func madeFrom(f *config.Fleet, name string, s *config.Site, o *config.Origin) (string, error) {
	b, err := json.Marshal([]any{name, probeHost(s), o})
	if err != nil {
		return "", err
	}
	files := []string{o.CA}
	if c := o.ClientCertificate; c != nil {
		files = append(files, c.Cert, c.Key)
	}
	if a := o.Auth; a != nil {
		files = append(files, a.Secret)
	}
	if b := o.S3; b != nil {
		files = append(files, b.Credentials)
	}
	for _, name := range files {
		if name == "" {
			continue
		}
		content, err := os.ReadFile(f.Path(name))
		if err != nil {
			return "", err
		}
		b = append(b, content...)
	}
	return string(b), nil
}

// start starts a pool, unless there is one with the same settings.
func (m *siteMaker) start(from string, p *origin.Pool) (*origin.Pool, error) {
	if have := cmp.Or(m.made.pools[from], m.before.pools[from]); have != nil {
		m.made.pools[from] = have
		return have, nil
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	m.made.pools[from] = p
	return p, nil
}

// ring returns the pool of the edges of the node's region, or nil if the node is the only
// one there.
func (m *siteMaker) ring() *origin.Pool {
	var nodes []*config.Node
	for i := range m.fleet.Nodes {
		if n := &m.fleet.Nodes[i]; n.Has(config.RoleEdge) && n.Region == m.node.Region && n.Region != "" {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) < 2 {
		return nil
	}
	return m.edgePool("region "+m.node.Region, nodes...)
}

// edgePool returns a pool of edges, which get requests on their listeners for peers. Probes are
// frequent, so that an edge that is down is soon skipped.
func (m *siteMaker) edgePool(name string, nodes ...*config.Node) *origin.Pool {
	p := &origin.Pool{Name: name, Balance: origin.Hash, Relays: true, Retries: len(nodes), TLS: m.peers, Log: m.log,
		ConnectTimeout: 2 * time.Second, PingInterval: 3 * time.Second, QueueTimeout: time.Second, MaxRequests: 4096,
		Health: &origin.Health{Path: "/.kaiku/health", Interval: 2 * time.Second, Timeout: time.Second,
			UnhealthyAfter: 2, HealthyAfter: 2}}
	// An edge may have to wait for the next edge, and that for an origin. The first one in the
	// chain waits longest.
	p.FirstByteTimeout, p.BetweenBytesTimeout = peerPatience(m.fleet)
	if len(nodes) > 1 {
		p.FirstByteTimeout *= 2
	}
	for _, n := range nodes {
		p.Servers = append(p.Servers, origin.Server{URL: &url.URL{Scheme: "https",
			Host: config.Reachable(m.fleet.EdgeOf(n).Peer, n)}, ServerName: n.Name, Self: n == m.node})
	}
	return p
}

// peerPatience returns how long another edge may take to respond, and to continue a body: as long
// as the slowest of the origins that it may have to wait for.
func peerPatience(f *config.Fleet) (firstByte, betweenBytes time.Duration) {
	add := func(o *config.Origin) {
		connect := cmp.Or(o.ConnectTimeout, config.Duration(5*time.Second))
		once := cmp.Or(o.FirstByteTimeout, config.Duration(30*time.Second)) + connect + cmp.Or(o.TLSTimeout, connect)
		firstByte = max(firstByte, time.Duration(once)*time.Duration(retriesOf(o)+1)+
			time.Duration(cmp.Or(o.QueueTimeout, config.Duration(5*time.Second))))
		betweenBytes = max(betweenBytes, time.Duration(cmp.Or(o.BetweenBytesTimeout, config.Duration(time.Minute))))
	}
	for _, s := range f.Sites {
		for _, o := range s.AllOrigins() {
			add(o)
		}
	}
	return firstByte + 10*time.Second, betweenBytes + 5*time.Second
}

// edgesFrom returns all settings of a pool of edges.
func edgesFrom(p *origin.Pool) string {
	return fmt.Sprintln(p.Name, p.Servers, p.FirstByteTimeout, p.BetweenBytesTimeout)
}

// peerTLS returns the TLS settings for connections to other edges. It returns nil if there are no
// such connections, or no fleet key.
func peerTLS(f *config.Fleet, n *config.Node, key *fleet.Key) (*tls.Config, error) {
	if key == nil || !f.HasPeers(n) {
		return nil, nil
	}
	return key.PeerTLS(n.Name, n.Roles...)
}

// keyIfNeeded reads the fleet key if the node needs it. If the fleet file names none, keyIfNeeded
// logs which functions are off without a key.
func keyIfNeeded(f *config.Fleet, n *config.Node, log *slog.Logger) (*fleet.Key, error) {
	if !f.UsesKey(n) {
		return nil, nil
	}
	if f.Secrets.FleetKey == "" {
		if clients, _ := f.ControlAddresses(); len(clients) > 0 || n.Has(config.RoleEdge) && f.HasPeers(n) {
			log.Warn("shields, region peers and the control plane are not used, because secrets.fleet_key is not set")
		}
		return nil, nil
	}
	key, err := fleet.ReadKey(f.Path(f.Secrets.FleetKey))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: put the fleet key there (the same on every node; `openssl rand -base64 32` makes one), or delete secrets.fleet_key", err)
	}
	if err != nil {
		return nil, err
	}
	return &key, nil
}

// probeHost returns the Host of probes for origins that otherwise get the client's Host.
func probeHost(s *config.Site) string {
	if len(s.Hosts) == 0 {
		return ""
	}
	return strings.TrimPrefix(s.Hosts[0], "*.")
}

func retriesOf(o *config.Origin) int {
	if o.Retries == nil {
		return 2
	}
	return *o.Retries
}

// OriginPool returns the pool of a site's origin servers.
func OriginPool(f *config.Fleet, s *config.Site) (*origin.Pool, error) {
	return poolOf(f, s, &s.Origin)
}

// poolOf returns the pool of one of a site's origins.
func poolOf(f *config.Fleet, s *config.Site, o *config.Origin) (*origin.Pool, error) {
	balance, err := origin.ParseBalance(o.Balance)
	if err != nil {
		return nil, err
	}
	p := &origin.Pool{Name: s.Name, Balance: balance, Host: o.Host, SNI: o.SNI, Retries: retriesOf(o),
		SlowStart: time.Duration(o.SlowStart), Hedge: time.Duration(o.Hedge),
		ConnectTimeout: time.Duration(o.ConnectTimeout), TLSTimeout: time.Duration(o.TLSTimeout),
		FirstByteTimeout:    time.Duration(o.FirstByteTimeout),
		BetweenBytesTimeout: time.Duration(o.BetweenBytesTimeout), MaxConnections: o.MaxConnections,
		MaxRequests: o.MaxRequests,
		Queue:       o.Queue, QueueTimeout: time.Duration(o.QueueTimeout)}
	for _, srv := range o.Servers {
		p.Servers = append(p.Servers, origin.Server{URL: o.S3Server(srv).URL, Weight: srv.Weight, Backup: srv.Backup})
	}
	if h := o.Health; h != nil {
		p.Health = &origin.Health{Path: h.Path, Interval: time.Duration(h.Interval), Timeout: time.Duration(h.Timeout),
			UnhealthyAfter: h.UnhealthyAfter, HealthyAfter: h.HealthyAfter, Status: h.Status, Match: h.Match}
		p.Health.Host = probeHost(s)
	}
	if o.CA != "" || o.ClientCertificate != nil {
		p.TLS = &tls.Config{}
	}
	if o.CA != "" {
		pem, err := os.ReadFile(f.Path(o.CA))
		if err != nil {
			return nil, fmt.Errorf("read the origin's CA: %w", err)
		}
		p.TLS.RootCAs = x509.NewCertPool()
		if !p.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the origin's CA: there is no certificate in %s", o.CA)
		}
	}
	if c := o.ClientCertificate; c != nil {
		cert, err := tls.LoadX509KeyPair(f.Path(c.Cert), f.Path(c.Key))
		if err != nil {
			return nil, fmt.Errorf("read the client certificate for the origin: %w", err)
		}
		p.TLS.Certificates = []tls.Certificate{cert}
	}
	if p.S3, err = f.S3Bucket(o); err != nil {
		return nil, err
	}
	if o.Auth != nil {
		secret, err := config.ReadSecret(f.Path(o.Auth.Secret))
		if err != nil {
			return nil, fmt.Errorf("read the secret for the origin: %w", err)
		}
		p.Secret = origin.Field{Name: o.Auth.Header, Value: secret}
	}
	return p, nil
}

// Dialer connects to an origin. nil means the default.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)
