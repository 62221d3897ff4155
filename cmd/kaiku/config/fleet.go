package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
)

// Fleet is the content of fleet.yaml, which is the same file on every node. The yaml tags are its
// keys. EdgeDefaults says what missing keys mean.
type Fleet struct {
	Sites   []Site      `yaml:"sites"`
	Nodes   []Node      `yaml:"nodes"`
	Edge    Edge        `yaml:"edge"`
	GeoDNS  GeoDNS      `yaml:"geodns"`
	TLS     TLS         `yaml:"tls"`
	Control Control     `yaml:"control"`
	Secrets Secrets     `yaml:"secrets"`
	Log     LogSettings `yaml:"log"`
	file    *yamlDoc    // where each part stands
	// zoneNames are the files that zones were read from.
	zoneNames []zoneNames
	dir       string  // that relative paths start from
	keep      *Keeper // nil unless a node reads the file
	sum       string  // the begin of the file's SHA-256, as deploy.FleetSum has it
}

// LogSettings are the settings of the log.
type LogSettings struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Site is what edges serve under some hosts.
type Site struct {
	Name   string    `yaml:"name"`
	Hosts  []string  `yaml:"hosts"`
	Origin Origin    `yaml:"origin"`
	Cache  Cache     `yaml:"cache"`
	HTTPS  SiteHTTPS `yaml:"https"`
	Rules  []Rule    `yaml:"rules"`
}

// SiteHTTPS is what a site says about plain HTTP.
type SiteHTTPS struct {
	Redirect bool  `yaml:"redirect"`
	HSTS     *HSTS `yaml:"hsts"`
}

// HSTS has the settings of Strict-Transport-Security (RFC 6797).
type HSTS struct {
	MaxAge            Duration `yaml:"max_age"`
	IncludeSubdomains bool     `yaml:"include_subdomains"`
	Preload           bool     `yaml:"preload"`
}

// Origin is where a site's misses are fetched.
type Origin struct {
	Servers             []OriginServer `yaml:"servers"`
	Balance             string         `yaml:"balance"`
	Host                string         `yaml:"host"` // origin.ClientHost, or a name
	SNI                 string         `yaml:"sni"`
	Health              *OriginHealth  `yaml:"health"`
	SlowStart           Duration       `yaml:"slow_start"`
	ConnectTimeout      Duration       `yaml:"connect_timeout"`
	TLSTimeout          Duration       `yaml:"tls_timeout"`
	FirstByteTimeout    Duration       `yaml:"first_byte_timeout"`
	BetweenBytesTimeout Duration       `yaml:"between_bytes_timeout"`
	Retries             *int           `yaml:"retries"`
	Hedge               Duration       `yaml:"hedge"`
	MaxConnections      int            `yaml:"max_connections"`
	MaxRequests         int            `yaml:"max_requests"`
	Queue               int            `yaml:"queue"`
	QueueTimeout        Duration       `yaml:"queue_timeout"`
	CA                  string         `yaml:"ca"`
	ClientCertificate   *Certificate   `yaml:"client_certificate"`
	Auth                *OriginAuth    `yaml:"auth"`
	Shield              string         `yaml:"shield"`
	PassFields          []string       `yaml:"pass_fields"`
}

// OriginAuth is a header field by which an origin knows the edges.
type OriginAuth struct {
	Header string `yaml:"header"`
	Secret string `yaml:"secret"` // a file
}

// OriginHealth has the settings of health checks of origin servers.
type OriginHealth struct {
	Probe  `yaml:",inline"`
	Status int    `yaml:"status"`
	Match  string `yaml:"match"`
}

// OriginServer is one of an origin's servers: a URL alone, or with more.
type OriginServer struct {
	URL    OriginURL `yaml:"url"`
	Weight int       `yaml:"weight"`
	Backup bool      `yaml:"backup"`
}

// UnmarshalText reads a server that is only a URL.
func (s *OriginServer) UnmarshalText(b []byte) error { return s.URL.UnmarshalText(b) }

// Probe is how the health of a server is found out.
type Probe struct {
	Path           string   `yaml:"path"`
	Interval       Duration `yaml:"interval"`
	Timeout        Duration `yaml:"timeout"`
	UnhealthyAfter int      `yaml:"unhealthy_after"`
	HealthyAfter   int      `yaml:"healthy_after"`
}

// Cache is what a site says where responses don't.
type Cache struct {
	DefaultTTL           Duration `yaml:"default_ttl"`
	StaleWhileRevalidate Duration `yaml:"stale_while_revalidate"`
	StaleIfError         Duration `yaml:"stale_if_error"`
	MaxObject            Size     `yaml:"max_object"`
	Slice                Size     `yaml:"slice"`
	IgnoreQuery          []string `yaml:"ignore_query"`
	SetCookie            string   `yaml:"set_cookie"`
}

// Node is one machine.
type Node struct {
	Name      string       `yaml:",key"`
	Roles     []string     `yaml:"roles"`
	Region    string       `yaml:"region"`
	Location  *Location    `yaml:"location"`
	Weight    *int         `yaml:"weight"` // 0 takes it out of the answers of name servers; nil is 1
	Addresses []netip.Addr `yaml:"addresses"`
	SSH       string       `yaml:"ssh"`
	Edge      Edge         `yaml:"edge"`
	Admin     string       `yaml:"admin"` // of a node that is no edge
	Control   Control      `yaml:"control"`
	Sites     []string     `yaml:"sites"` // the only ones that its credential may purge
}

// Location is a latitude and a longitude in degrees.
type Location [2]float64

// Edge is how edges run; a node's own values come before the fleet's.
type Edge struct {
	HTTP   string `yaml:"http"`
	HTTPS  string `yaml:"https"`
	Admin  string `yaml:"admin"`
	Peer   string `yaml:"peer"`
	Data   string `yaml:"data"`
	Disk   Size   `yaml:"disk"`
	Memory Size   `yaml:"memory"`
	// MaxDisconnected is how long it trusts what it has without the log of purges.
	MaxDisconnected Duration `yaml:"max_disconnected"`
	Capacity        Size     `yaml:"capacity"` // bytes a second that it can send; 0 is unknown
	// PurgeFrom are the networks that may send PURGE and BAN to http and https.
	PurgeFrom      []netip.Prefix `yaml:"purge_from"`
	MaxConnections int            `yaml:"max_connections"` // of clients
	MaxPerClient   int            `yaml:"max_connections_per_client"`
	DrainTimeout   Duration       `yaml:"drain_timeout"` // for what is under way at the end
	AccessLog      *LogFile       `yaml:"access_log"`
	HTTP2          string         `yaml:"http2"` // whose server clients have: own or go; "" is own
	// hits of the RAM tier are answered in front of net/http; nil is true
	HitLane *bool `yaml:"hit_lane"`
}

// GeoDNS is how the name servers run and what they answer.
type GeoDNS struct {
	Listen AddressList               `yaml:"listen"`
	GeoIP  string                    `yaml:"geoip"`
	Locate map[netip.Prefix]Location `yaml:"locate"`
	Zones  []Zone                    `yaml:"zones"`
	Data   string                    `yaml:"data"` // where copies of zones and of the geoip database are kept
	Health Probe                     `yaml:"health"`

	RateLimit *RateLimit `yaml:"rate_limit"`
	QueryLog  *LogFile   `yaml:"query_log"`
}

// AddressList is one address to listen on, or a list of them.
type AddressList []string

// UnmarshalText takes one address; "" is none.
func (l *AddressList) UnmarshalText(b []byte) error {
	if *l = nil; len(b) > 0 {
		*l = AddressList{string(b)}
	}
	return nil
}

// DNSListen is where name servers listen: one address at least.
func (f *Fleet) DNSListen() []string {
	if len(f.GeoDNS.Listen) == 0 {
		return []string{":53"}
	}
	return f.GeoDNS.Listen
}

// String says what the log is, for comparison.
func (l *LogFile) String() string {
	if l == nil {
		return ""
	}
	return l.File + " " + strconv.FormatFloat(l.Sample, 'g', -1, 64)
}

// RateLimit is how many responses a second a client network is sent over UDP.
type RateLimit struct {
	Responses int            `yaml:"responses"`
	Errors    int            `yaml:"errors"`
	Slip      int            `yaml:"slip"`
	Exempt    []netip.Prefix `yaml:"exempt"`
}

// LogFile is where a sample of the queries, or of the requests, is written.
type LogFile struct {
	File   string  `yaml:"file"` // - is standard output
	Sample float64 `yaml:"sample"`
}

// Zone is a zone with its static records in a file and its edge names.
type Zone struct {
	Name  string     `yaml:"name"`
	File  string     `yaml:"file"`
	Edges []EdgeName `yaml:"edges"`

	DNSSEC *DNSSEC `yaml:"dnssec"` // nil is a zone without signatures
}

// DNSSEC is how a zone is signed.
type DNSSEC struct {
	Key string `yaml:"key"` // a file of the zone's keys, as kaiku dnssec keygen makes it
}

// EdgeName is a name that is answered with the nearest healthy edges. "@" is the apex.
type EdgeName struct {
	Name    string   `yaml:",key"`
	Nodes   []string `yaml:"nodes"`
	Answers int      `yaml:"answers"`
	TTL     Duration `yaml:"ttl"`
}

// TLS is how edges get certificates.
type TLS struct {
	ACME         *ACME         `yaml:"acme"`
	Certificates []Certificate `yaml:"certificates"`
}

// ACME is the account at a certificate authority.
type ACME struct {
	Email     string `yaml:"email"`
	Directory string `yaml:"directory"`
	Profile   string `yaml:"profile"`
	CA        string `yaml:"ca"` // a file: of what authorities the directory's own certificate may be
}

// Certificate is a certificate in files.
type Certificate struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Control is how control nodes run.
type Control struct {
	Listen  string `yaml:"listen"`
	Cluster string `yaml:"cluster"`
	Data    string `yaml:"data"`
}

// Secrets are paths of files, never values.
type Secrets struct {
	AdminToken string  `yaml:"admin_token"`
	FleetKey   string  `yaml:"fleet_key"`
	Tokens     []Token `yaml:"tokens"`
}

// Token is a token of the admin API that is good for some things only.
type Token struct {
	File   string   `yaml:"file"`
	Scopes []string `yaml:"scopes"`
	Sites  []string `yaml:"sites"`
}

// The roles of a node.
const (
	RoleEdge    = "edge"
	RoleGeoDNS  = "geodns"
	RoleControl = "control"
)

// out reports whether name servers leave the node out of their answers.
func (n *Node) out() bool { return n.Weight != nil && *n.Weight == 0 }

// weight is the node's share among the edges of one place.
func (n *Node) weight() int {
	if n.Weight == nil {
		return 1
	}
	return *n.Weight
}

// Has reports whether the node has a role.
func (n *Node) Has(role string) bool {
	for _, r := range n.Roles {
		if r == role {
			return true
		}
	}
	return false
}

// Node returns the node with a name, or nil.
func (f *Fleet) Node(name string) *Node {
	for i := range f.Nodes {
		if f.Nodes[i].Name == name {
			return &f.Nodes[i]
		}
	}
	return nil
}

// UnknownNode is the error of a flag that names no node of the fleet file.
type UnknownNode struct{ error }

// WantNode returns the node that a flag names. The error lists the nodes of the fleet file.
func (f *Fleet) WantNode(flag, name string) (*Node, error) {
	if n := f.Node(name); n != nil {
		return n, nil
	}
	known := strings.Join(f.NodeNames(), ", ")
	if name == "" {
		return nil, UnknownNode{fmt.Errorf("%s: name a node of %s: it has %s", flag, f.file.name, known)}
	}
	if near := words.Nearest(name, f.NodeNames()); near != "" {
		known += "; did you mean " + near + "?"
	}
	return nil, UnknownNode{fmt.Errorf("%s: %s has no node %q: it has %s", flag, f.file.name, name, known)}
}

// NodeNames returns the names of all nodes, in the order of the file.
func (f *Fleet) NodeNames() []string {
	names := make([]string, len(f.Nodes))
	for i := range f.Nodes {
		names[i] = f.Nodes[i].Name
	}
	return names
}

// EdgeDefaults are the default settings of an edge. Other parts of fleet.yaml default to the zero
// values of what they configure.
func EdgeDefaults() Edge {
	return Edge{HTTP: ":80", Admin: "127.0.0.1:9080", Peer: ":9443", Data: "/var/lib/kaiku", Disk: 10 << 30,
		Memory: 256 << 20, MaxDisconnected: Duration(time.Minute)}
}

// EdgeOf returns how a node runs its edge.
func (f *Fleet) EdgeOf(n *Node) Edge {
	e := n.Edge
	for _, d := range []Edge{f.Edge, EdgeDefaults()} {
		e.HTTP = cmp.Or(e.HTTP, d.HTTP)
		e.HTTPS = cmp.Or(e.HTTPS, d.HTTPS)
		e.Admin = cmp.Or(e.Admin, d.Admin)
		e.Peer = cmp.Or(e.Peer, d.Peer)
		e.Data = cmp.Or(e.Data, d.Data)
		e.Disk = cmp.Or(e.Disk, d.Disk)
		e.Memory = cmp.Or(e.Memory, d.Memory)
		e.MaxDisconnected = cmp.Or(e.MaxDisconnected, d.MaxDisconnected)
		e.Capacity = cmp.Or(e.Capacity, d.Capacity)
		e.MaxConnections = cmp.Or(e.MaxConnections, d.MaxConnections)
		e.MaxPerClient = cmp.Or(e.MaxPerClient, d.MaxPerClient)
		e.DrainTimeout = cmp.Or(e.DrainTimeout, d.DrainTimeout)
		e.AccessLog = cmp.Or(e.AccessLog, d.AccessLog)
		e.HTTP2 = cmp.Or(e.HTTP2, d.HTTP2)
		e.HitLane = cmp.Or(e.HitLane, d.HitLane)
		if e.PurgeFrom == nil {
			e.PurgeFrom = d.PurgeFrom
		}
	}
	if !f.Secures() {
		e.HTTPS = ""
	} else {
		e.HTTPS = cmp.Or(e.HTTPS, ":443")
	}
	return e
}

// ControlOf returns how a node runs its part of the control plane.
func (f *Fleet) ControlOf(n *Node) Control {
	return Control{
		Listen:  cmp.Or(n.Control.Listen, f.Control.Listen, ":4222"),
		Cluster: cmp.Or(n.Control.Cluster, f.Control.Cluster, ":6222"),
		Data:    cmp.Or(n.Control.Data, f.Control.Data, "/var/lib/kaiku/control"),
	}
}

// geodnsData returns the folder in which a name server keeps copies.
func (f *Fleet) geodnsData(n *Node) string {
	if f.GeoDNS.Data != "" {
		return f.Path(f.GeoDNS.Data)
	}
	return filepath.Join(f.EdgeOf(n).Data, "geodns")
}

// LowerHosts returns hosts in the form that edges use.
func LowerHosts(hosts []string) []string {
	var out []string
	for _, h := range hosts {
		out = append(out, strings.TrimSuffix(strings.ToLower(h), "."))
	}
	return out
}

// LogLevels are the values of log.level and --log-level.
func LogLevels() []string { return []string{"debug", "info", "warn", "error"} }

// logFormats are the values of log.format.
func logFormats() []string { return []string{"text", "json"} }
