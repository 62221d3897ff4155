package geodns

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// Config is everything that a Server answers from.
type Config struct {
	Zones []*Zone // at least one
	Edges []EdgeName
	Nodes []Node
	// Locate gives the places of networks. The longest matching prefix wins. Locate takes
	// precedence over every database.
	Locate map[netip.Prefix]Place
	// GeoIP is the path of an mmdb file with countries or cities. "" means to use only the embedded
	// table of countries.
	GeoIP string
	// GeoIPCopy is the path of a copy of a good GeoIP file. If GeoIP can't be used, the server
	// keeps the database that it has open, or else opens the copy. "" means that there is no copy,
	// and makes an unusable GeoIP an error.
	GeoIPCopy string
	Health    Health

	RateLimit RateLimit
	// Keys are the DNSSEC keys of zones, by zone name. The server signs the answers of these zones.
	// Their files must have no signatures.
	Keys map[string]dnssec.Keys
}

// Node is a machine whose addresses may be in the answers for edge names.
type Node struct {
	Name string // unique, not empty
	// Nodes of one region share their clients. "" puts the node into no region.
	Region    string
	Place     Place
	Weight    int          // relative share of clients among the nodes at one place; 0 means 1
	Out       bool         // the node is probed, but is in no answer
	Addresses []netip.Addr // at least one and at most 64, IPv4 or IPv6
	// ALPN lists the protocols that the node speaks over TLS on port 443, best first, such as "h3"
	// and "h2". If it is empty, the node doesn't speak TLS, and has no HTTPS record.
	ALPN []string
	// Probe is an http or https URL. A response with status 200 means that the node is healthy. A
	// node with an empty Probe isn't probed and counts as healthy. If the URL's host is one of
	// Addresses, every address is probed, and addresses whose own probes fail are left out of
	// answers.
	Probe string
	// ProbeHost is the Host header and TLS server name of the probe. "" means the URL's host.
	ProbeHost string
}

// EdgeName is a name whose answers have the addresses of the nearest healthy nodes. It must lie in
// one of the zones, and not below a delegation or a DNAME. The zone may have other data at the
// name, but no CNAME, A or AAAA. The name may be the zone's apex or a wildcard.
type EdgeName struct {
	Name string // absolute, with or without a final dot
	// Nodes are names of nodes. Empty means all of Config.Nodes. Clients whose place is unknown get
	// them in this order.
	Nodes   []string
	Answers int // number of nodes in an answer; 0 means 1
	// TTL is the TTL of the address records, at most 2147483647 s. It is rounded up to a whole
	// second. 0 means 30 s.
	TTL time.Duration
}

// Health configures the probes of nodes.
type Health struct {
	Interval       time.Duration // from the end of a probe to the next one, ±10 %; 0 means 2s
	Timeout        time.Duration // time limit of one probe; 0 means 1s
	UnhealthyAfter int           // consecutive failures until a node is unhealthy; 0 means 2
	HealthyAfter   int           // consecutive successes until it is healthy again; 0 means 2
}

func (h Health) withDefaults() Health {
	if h.Interval == 0 {
		h.Interval = 2 * time.Second
	}
	if h.Timeout == 0 {
		h.Timeout = time.Second
	}
	if h.UnhealthyAfter == 0 {
		h.UnhealthyAfter = 2
	}
	if h.HealthyAfter == 0 {
		h.HealthyAfter = 2
	}
	return h
}

// check returns all errors of the configuration that don't depend on the zones' contents.
// newSnapshot finds the others.
func (cfg *Config) check() error {
	var errs []error
	if len(cfg.Zones) == 0 {
		errs = append(errs, errors.New("no zone"))
	}
	zones := make(map[name]bool)
	for _, z := range cfg.Zones {
		if zones[z.origin] {
			errs = append(errs, fmt.Errorf("zone %s: given twice", z.Name()))
		}
		zones[z.origin] = true
	}
	nodes := make(map[string]bool)
	for _, n := range cfg.Nodes {
		if nodes[n.Name] {
			errs = append(errs, fmt.Errorf("node %s: given twice", n.Name))
		}
		nodes[n.Name] = true
		errs = append(errs, n.check())
	}
	h := cfg.Health
	if h.Interval < 0 || h.Timeout < 0 || h.UnhealthyAfter < 0 || h.HealthyAfter < 0 {
		errs = append(errs, errors.New("health: a negative interval, timeout or count"))
	}
	errs = append(errs, cfg.RateLimit.check())
	for i := range cfg.Edges {
		errs = append(errs, cfg.Edges[i].check(cfg, nodes))
	}
	return errors.Join(errs...)
}

func (n *Node) check() error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("node "+n.Name+": "+format, args...))
	}
	if n.Name == "" {
		fail("no name")
	}
	if err := n.Place.check(); err != nil {
		fail("%w", err)
	}
	if len(n.Addresses) == 0 {
		fail("no address")
	}
	if len(n.Addresses) > maxAddresses {
		fail("%d addresses: want %d at most", len(n.Addresses), maxAddresses)
	}
	for i, a := range n.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			fail("%v can't be the address of an edge", a)
		}
		if slices.Contains(n.Addresses[:i], a) {
			fail("address %v given twice", a)
		}
	}
	if n.Probe != "" {
		if u, err := url.Parse(n.Probe); err != nil {
			fail("probe: %w", err)
		} else if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			fail("probe %s: want an http or https URL", n.Probe)
		}
	}
	if n.Weight < 0 {
		fail("weight %d", n.Weight)
	}
	for _, protocol := range n.ALPN {
		if protocol == "" || len(protocol) > 32 {
			fail("ALPN %q: want a protocol such as h2", protocol)
		}
	}
	return errors.Join(errs...)
}

// maxAddresses is the maximum number of addresses of a node.
const maxAddresses = 64

// probed returns the addresses at which the node is probed. An invalid address stands for the URL's
// host.
func (n *Node) probed() []netip.Addr {
	if n.Probe == "" {
		return nil
	}
	if u, err := url.Parse(n.Probe); err == nil {
		if host, err := netip.ParseAddr(u.Hostname()); err == nil && slices.Contains(n.Addresses, host) {
			return n.Addresses
		}
	}
	return []netip.Addr{{}}
}

// probeOf returns the URL for probing addr.
func (n *Node) probeOf(addr netip.Addr) string {
	u, err := url.Parse(n.Probe)
	if err != nil || !addr.IsValid() {
		return n.Probe
	}
	switch port := u.Port(); {
	case port != "":
		u.Host = net.JoinHostPort(addr.String(), port)
	case addr.Is4():
		u.Host = addr.String()
	default:
		u.Host = "[" + addr.String() + "]"
	}
	return u.String()
}

func (e *EdgeName) check(cfg *Config, nodes map[string]bool) error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("edge name "+e.Name+": "+format, args...))
	}
	if e.Answers < 0 {
		fail("%d answers", e.Answers)
	}
	if e.TTL < 0 || e.TTL > math.MaxInt32*time.Second {
		fail("TTL %v: want 0s to %v", e.TTL, math.MaxInt32*time.Second)
	}
	if len(cfg.Nodes) == 0 {
		fail("no nodes to answer with")
	}
	for i, n := range e.Nodes {
		if !nodes[n] {
			fail("unknown node %s", n)
		}
		if slices.Contains(e.Nodes[:i], n) {
			fail("node %s given twice", n)
		}
	}
	if in := func(n Node) bool { return !n.Out }; len(errs) == 0 && !slices.ContainsFunc(e.choose(cfg.Nodes), in) {
		fail("all of its nodes have a weight of 0, so there is no edge to answer with")
	}
	return errors.Join(errs...)
}

// choose returns the nodes of the edge name, in the order in which it lists them. The edge name
// must have passed check.
func (e *EdgeName) choose(all []Node) []Node {
	if len(e.Nodes) == 0 {
		return all
	}
	nodes := make([]Node, 0, len(e.Nodes))
	for _, name := range e.Nodes {
		nodes = append(nodes, all[slices.IndexFunc(all, func(n Node) bool { return n.Name == name })])
	}
	return nodes
}

// snapshot is a validated Config in the form that queries are answered from. It is immutable,
// except for the states of nodes.
type snapshot struct {
	generation uint64 // differs between the configurations of a server

	zones   map[name]*Zone
	plain   map[name]*Zone // the zones without challenges
	edges   []*edge
	locator *locator
	// geoipFault is the reason why the open database is not the configured one. It is nil if the
	// configured one is open.
	geoipFault error
	health     Health
	rates      rates
	nodes      []Node
	states     map[string]*nodeState // by node name

	signatures *signatures // nil if no zone has been signed yet

	familyIDs   familyIDs
	zoneQueries map[*Zone]*prometheus.Counter // counter of queries per zone
}

// newSnapshot validates cfg and builds its snapshot. It takes over the states of nodes from before,
// and creates those of new nodes.
func newSnapshot(cfg Config, before *snapshot) (*snapshot, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	snap := &snapshot{
		zones: make(map[name]*Zone), health: cfg.Health.withDefaults(),
		rates: cfg.RateLimit.rates(), nodes: cfg.Nodes, states: make(map[string]*nodeState), familyIDs: make(familyIDs),
	}
	if before != nil {
		snap.generation, snap.signatures = before.generation+1, before.signatures
	}
	if snap.signatures == nil && len(cfg.Keys) > 0 {
		snap.signatures = newSignatures()
	}
	for _, node := range cfg.Nodes {
		snap.states[node.Name] = newNodeState(node, before)
	}
	for _, z := range cfg.Zones {
		snap.zones[z.origin] = z
	}
	if err := snap.addKeys(cfg.Keys); err != nil {
		return nil, err
	}
	if err := snap.addEdges(cfg); err != nil {
		return nil, err
	}
	snap.plain = snap.zones
	known, err := newNetworks(cfg.Locate)
	if err != nil {
		return nil, err
	}
	snap.locator = &locator{known: known, countries: centroids()}
	if cfg.GeoIP == "" {
		return snap, nil
	}
	var open *database
	if before != nil {
		open = before.locator.db
	}
	snap.locator.db, err = openDatabase(cfg.GeoIP, open)
	if err == nil || cfg.GeoIPCopy == "" {
		return snap, err
	}
	snap.geoipFault = err
	if snap.locator.db = open; open == nil {
		if snap.locator.db, err = openDatabase(cfg.GeoIPCopy, nil); err != nil {
			return nil, fmt.Errorf("%w; and there is no good copy of it: %w", snap.geoipFault, err)
		}
	}
	return snap, nil
}

// addKeys replaces the zones that have keys with signed copies. It returns an error for each zone
// that is missing or whose keys are not valid.
func (s *snapshot) addKeys(keys map[string]dnssec.Keys) error {
	var errs []error
	for zone, list := range keys {
		n, err := nameOf(zone)
		z := s.zones[n]
		if err != nil || z == nil {
			errs = append(errs, fmt.Errorf("zone %s: there are DNSSEC keys for it, but no such zone", zone))
			continue
		}
		if s.zones[n], err = z.withKeys(list); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// addEdges adds the edge names to their zones, and returns an error for each that can't be there.
func (s *snapshot) addEdges(cfg Config) error {
	var errs []error
	byZone := make(map[name][]*edge)
	seen := make(map[name]bool)
	for _, e := range cfg.Edges {
		n, err := nameOf(e.Name)
		if err == nil && seen[n] {
			err = errors.New("given twice")
		}
		zone := s.zoneFor(n, false)
		if err == nil {
			err = fits(zone, n)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("edge name %s: %w", e.Name, err))
			continue
		}
		seen[n] = true
		made := newEdge(n, e, e.choose(cfg.Nodes), s.states)
		for rrtype, f := range made.families {
			f.id = s.familyIDs.id(made, f, rrtype)
		}
		s.edges = append(s.edges, made)
		byZone[zone.origin] = append(byZone[zone.origin], made)
	}
	for origin, edges := range byZone {
		s.zones[origin] = s.zones[origin].withEdges(edges)
	}
	return errors.Join(errs...)
}

// Misfits returns, by zone name, an error that says why an edge name of the zone can't be there.
// Zones without such an edge name are not in the map.
func Misfits(zones []*Zone, edges []EdgeName) map[string]error {
	snap := &snapshot{zones: make(map[name]*Zone)}
	for _, z := range zones {
		snap.zones[z.origin] = z
	}
	misfits := make(map[string]error)
	for _, e := range edges {
		n, err := nameOf(e.Name)
		if err != nil {
			continue // not the zone's fault
		}
		if zone := snap.zoneFor(n, false); zone != nil {
			if err := fits(zone, n); err != nil {
				misfits[zone.Name()] = fmt.Errorf("edge name %s: %w", e.Name, err)
			}
		}
	}
	return misfits
}

// fits returns an error if an edge name n can't be in the zone.
func fits(zone *Zone, n name) error {
	if zone == nil {
		return errors.New("in none of the zones")
	}
	switch found, at := zone.lookup(n, false); found {
	case delegation:
		return fmt.Errorf("below the delegation of %s", at.name)
	case redirect:
		return fmt.Errorf("below the DNAME of %s", at.name)
	}
	if at := zone.nodes[n]; at != nil {
		if set := at.address(); set != nil {
			return fmt.Errorf("the zone has %s there too", dns.Type(set.rrtype))
		}
	}
	return nil
}

// zoneFor returns the closest enclosing zone of a name, or nil. For a DS query at the apex of a
// zone it returns the parent zone if that is served too (RFC 4035 section 3.1.4.1).
func (s *snapshot) zoneFor(n name, ds bool) *Zone {
	var child *Zone
	for m := n; m != ""; m = m.parent() {
		if z := s.zones[m]; z != nil {
			if !ds || m != n {
				return z
			}
			child = z
		}
		if m.isRoot() {
			break
		}
	}
	return child
}
