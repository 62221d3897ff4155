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
// keys. EdgeDefaults has the default values.
type Fleet struct {
	Sites   []Site      `yaml:"sites"`
	Nodes   []Node      `yaml:"nodes"`
	Edge    Edge        `yaml:"edge"`
	GeoDNS  GeoDNS      `yaml:"geodns"`
	TLS     TLS         `yaml:"tls"`
	Control Control     `yaml:"control"`
	Secrets Secrets     `yaml:"secrets"`
	Log     LogSettings `yaml:"log"`
	file    *yamlDoc    // has the position of every value
	// zoneNames has the names of the files that the zones were read from.
	zoneNames []zoneNames
	dir       string  // the folder that relative paths start from
	keep      *Keeper // nil unless a node reads the file
	sum       string  // the start of the file's SHA-256, as deploy.FleetSum returns it
}

// LogSettings are the settings of a process's log.
type LogSettings struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Site is a set of hosts that edges serve from one origin.
type Site struct {
	Name    string            `yaml:"name"`
	Hosts   []string          `yaml:"hosts"`
	Origin  Origin            `yaml:"origin"`
	Origins map[string]Origin `yaml:"origins"` // more origins, which rules choose
	Cache   Cache             `yaml:"cache"`
	HTTPS   SiteHTTPS         `yaml:"https"`
	Rules   []Rule            `yaml:"rules"`

	Compress *Compress `yaml:"compress"` // nil means off

	ServerTiming bool `yaml:"server_timing"`
}

// SiteHTTPS has a site's settings for redirects to HTTPS and for HSTS.
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

// Origin is where edges fetch a site's misses.
type Origin struct {
	Servers             []OriginServer `yaml:"servers"`
	Balance             string         `yaml:"balance"`
	Host                string         `yaml:"host"` // Host for origins: a name, or origin.ClientHost
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
	S3                  *S3            `yaml:"s3"`
	Shield              string         `yaml:"shield"`
	PassFields          []string       `yaml:"pass_fields"`
}

// OriginAuth is a header field by which an origin recognises the edges.
type OriginAuth struct {
	Header string `yaml:"header"`
	Secret string `yaml:"secret"` // a file with the field's value
}

// OriginHealth has the settings of health checks of origin servers.
type OriginHealth struct {
	Probe  `yaml:",inline"`
	Status int    `yaml:"status"`
	Match  string `yaml:"match"`
}

// OriginServer is one server of an origin. In YAML it is a URL or a mapping.
type OriginServer struct {
	URL    OriginURL `yaml:"url"`
	Weight int       `yaml:"weight"`
	Backup bool      `yaml:"backup"`
}

// UnmarshalText parses a server that is given as a URL.
func (s *OriginServer) UnmarshalText(b []byte) error { return s.URL.UnmarshalText(b) }

// Probe has the settings of a health check.
type Probe struct {
	Path           string   `yaml:"path"`
	Interval       Duration `yaml:"interval"`
	Timeout        Duration `yaml:"timeout"`
	UnhealthyAfter int      `yaml:"unhealthy_after"`
	HealthyAfter   int      `yaml:"healthy_after"`
}

// Cache has a site's settings for responses that don't say themselves how to cache them.
type Cache struct {
	DefaultTTL           Duration `yaml:"default_ttl"`
	StaleWhileRevalidate Duration `yaml:"stale_while_revalidate"`
	StaleIfError         Duration `yaml:"stale_if_error"`
	MaxObject            Size     `yaml:"max_object"`
	Slice                Size     `yaml:"slice"`
	IgnoreQuery          []string `yaml:"ignore_query"`
	SetCookie            string   `yaml:"set_cookie"`
}

// Node is a machine of the fleet.
type Node struct {
	Name      string       `yaml:",key"`
	Roles     []string     `yaml:"roles"`
	Region    string       `yaml:"region"`
	Location  *Location    `yaml:"location"`
	Weight    *int         `yaml:"weight"` // share of the clients; 0 removes it from DNS answers; nil means 1
	Addresses []netip.Addr `yaml:"addresses"`
	SSH       string       `yaml:"ssh"`
	Edge      Edge         `yaml:"edge"`
	Admin     string       `yaml:"admin"` // address of the admin listener, for a node that is no edge
	Control   Control      `yaml:"control"`
	Sites     []string     `yaml:"sites"` // the only sites that the node's credential may purge
}

// Location is a latitude and a longitude in degrees.
type Location [2]float64

// Edge has the settings of edges. A node's own settings override the fleet's.
type Edge struct {
	HTTP   string `yaml:"http"`
	HTTPS  string `yaml:"https"`
	Admin  string `yaml:"admin"`
	Peer   string `yaml:"peer"`
	Data   string `yaml:"data"`
	Disk   Size   `yaml:"disk"`
	Memory Size   `yaml:"memory"`
	// MaxDisconnected is how long an edge without contact to the log of purges trusts its cache.
	MaxDisconnected Duration `yaml:"max_disconnected"`
	Capacity        Size     `yaml:"capacity"` // bytes a second that the edge can send; 0 means unknown
	// PurgeFrom has the networks that may send PURGE and BAN requests to http and https.
	PurgeFrom      []netip.Prefix `yaml:"purge_from"`
	MaxConnections int            `yaml:"max_connections"` // client connections
	MaxPerClient   int            `yaml:"max_connections_per_client"`
	DrainTimeout   Duration       `yaml:"drain_timeout"` // for requests under way at shutdown
	AccessLog      *LogFile       `yaml:"access_log"`
	HTTP2          string         `yaml:"http2"` // the HTTP/2 server: own or go; "" means own
	// HitLane enables answering hits of the RAM tier in front of net/http. nil means true.
	HitLane *bool `yaml:"hit_lane"`
}

// GeoDNS has the settings of the name servers, and the zones that they answer.
type GeoDNS struct {
	Listen AddressList               `yaml:"listen"`
	GeoIP  string                    `yaml:"geoip"`
	Locate map[netip.Prefix]Location `yaml:"locate"`
	Zones  []Zone                    `yaml:"zones"`
	Data   string                    `yaml:"data"` // folder for copies of the zones and of the geoip database
	Health Probe                     `yaml:"health"`

	RateLimit *RateLimit `yaml:"rate_limit"`
	QueryLog  *LogFile   `yaml:"query_log"`
}

// AddressList has addresses to listen on. In YAML it is one address or a list.
type AddressList []string

// UnmarshalText sets the list to one address, or to none if the text is "".
func (l *AddressList) UnmarshalText(b []byte) error {
	if *l = nil; len(b) > 0 {
		*l = AddressList{string(b)}
	}
	return nil
}

// DNSListen returns the addresses that name servers listen on: at least one.
func (f *Fleet) DNSListen() []string {
	if len(f.GeoDNS.Listen) == 0 {
		return []string{":53"}
	}
	return f.GeoDNS.Listen
}

// String returns the settings as one text, for comparison. A nil LogFile is "".
func (l *LogFile) String() string {
	if l == nil {
		return ""
	}
	return l.File + " " + strconv.FormatFloat(l.Sample, 'g', -1, 64)
}

// RateLimit limits the responses a second that a name server sends to a client network over UDP.
type RateLimit struct {
	Responses int            `yaml:"responses"`
	Errors    int            `yaml:"errors"`
	Slip      int            `yaml:"slip"`
	Exempt    []netip.Prefix `yaml:"exempt"`
}

// LogFile is a log of a sample of the queries or requests.
type LogFile struct {
	File   string  `yaml:"file"` // "-" means standard output
	Sample float64 `yaml:"sample"`
}

// Zone is a DNS zone: static records from a file, and edge names.
type Zone struct {
	Name  string     `yaml:"name"`
	File  string     `yaml:"file"`
	Edges []EdgeName `yaml:"edges"`

	DNSSEC *DNSSEC `yaml:"dnssec"` // nil means an unsigned zone
}

// DNSSEC has the settings for signing a zone.
type DNSSEC struct {
	Key string `yaml:"key"` // a file with the zone's keys, as kaiku dnssec keygen writes it
}

// EdgeName is a name whose answers are the nearest healthy edges. "@" is the apex of the zone.
type EdgeName struct {
	Name    string   `yaml:",key"`
	Nodes   []string `yaml:"nodes"`
	Answers int      `yaml:"answers"`
	TTL     Duration `yaml:"ttl"`
}

// TLS has the sources of the edges' certificates.
type TLS struct {
	ACME         *ACME         `yaml:"acme"`
	Certificates []Certificate `yaml:"certificates"`
}

// ACME is an account at an ACME certificate authority (RFC 8555).
type ACME struct {
	Email     string `yaml:"email"`
	Directory string `yaml:"directory"`
	Profile   string `yaml:"profile"`
	CA        string `yaml:"ca"` // a file with the CA certificates to verify the directory's server with
}

// Certificate has the files of a certificate and its private key.
type Certificate struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Control has the settings of control nodes.
type Control struct {
	Listen  string `yaml:"listen"`
	Cluster string `yaml:"cluster"`
	Data    string `yaml:"data"`
}

// Secrets has the paths of files with secrets, never the secrets themselves.
type Secrets struct {
	AdminToken string  `yaml:"admin_token"`
	FleetKey   string  `yaml:"fleet_key"`
	Tokens     []Token `yaml:"tokens"`
}

// Token is a token of the admin API with limited scopes and sites.
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

// weight returns the node's share of the clients among the edges at one location.
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

// UnknownNode is the error for a flag whose value is no node of the fleet file.
type UnknownNode struct{ error }

// WantNode returns the node that a flag names. Its error lists the nodes of the fleet file.
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

// EdgeDefaults returns the default settings of an edge. For other parts of fleet.yaml, the default
// is the zero value of what they configure.
func EdgeDefaults() Edge {
	return Edge{HTTP: ":80", Admin: "127.0.0.1:9080", Peer: ":9443", Data: "/var/lib/kaiku", Disk: 10 << 30,
		Memory: 256 << 20, MaxDisconnected: Duration(time.Minute)}
}

// EdgeOf returns the settings of a node's edge: its own, then the fleet's, then the defaults.
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

// ControlOf returns the settings of a control node.
func (f *Fleet) ControlOf(n *Node) Control {
	return Control{
		Listen:  cmp.Or(n.Control.Listen, f.Control.Listen, ":4222"),
		Cluster: cmp.Or(n.Control.Cluster, f.Control.Cluster, ":6222"),
		Data:    cmp.Or(n.Control.Data, f.Control.Data, "/var/lib/kaiku/control"),
	}
}

// geodnsData returns the folder in which a name server keeps copies of zones.
func (f *Fleet) geodnsData(n *Node) string {
	if f.GeoDNS.Data != "" {
		return f.Path(f.GeoDNS.Data)
	}
	return filepath.Join(f.EdgeOf(n).Data, "geodns")
}

// LowerHosts returns hosts in lower case and without the final dot, as edges compare them.
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
