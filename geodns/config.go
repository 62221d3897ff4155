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
)

// Config is all that a Server answers from.
type Config struct {
	Zones  []*Zone // at least one
	Edges  []EdgeName
	Nodes  []Node
	Locate map[netip.Prefix]Place // networks whose place is known; the longest prefix counts, before any database
	GeoIP  string                 // path of an mmdb with countries or cities; "" is the embedded table of countries alone
	// GeoIPCopy is the path of a copy of one that was good: where GeoIP can't be used, the database
	// in use is used on, or else the copy. "" is none, and makes that an error.
	GeoIPCopy string
	Health    Health

	RateLimit RateLimit
}

// Node is a machine that edge names may be answered with.
type Node struct {
	Name      string // unique, not empty
	Region    string // nodes of one region share their clients; "" is a region of its own
	Place     Place
	Weight    int          // its share among the nodes of one place; 0 is 1
	Out       bool         // it is taken out: probed, but in no answer
	Addresses []netip.Addr // at least one, IPv4 or IPv6
	ALPN      []string     // what it speaks over TLS on port 443, best first, as "h3", "h2"; empty is no TLS, and no HTTPS record
	// Probe is an http or https URL whose answer 200 means healthy; "" is not probed, and taken as
	// healthy. If its host is one of Addresses, each of them is probed in its place, and one whose
	// own probes fail is not answered.
	Probe     string
	ProbeHost string // Host header of the probe, and its TLS server name; "" is the URL's
}

// EdgeName is a name that is answered with the nearest healthy nodes. It must lie in one of the
// zones, which may have other data there, but no CNAME and no addresses. It may be the zone's apex,
// or a wildcard.
type EdgeName struct {
	Name    string        // absolute, with or without the dot at its end
	Nodes   []string      // names of nodes; empty is every node of Config.Nodes; their order counts for clients of no known place
	Answers int           // how many nodes are answered; 0 is 1
	TTL     time.Duration // of the addresses, rounded up to a second; 0 is 30s
}

// Health is how nodes are probed.
type Health struct {
	Interval       time.Duration // from one probe of a node to the next, ±10 %; 0 is 2s
	Timeout        time.Duration // of a probe; 0 is 1s
	UnhealthyAfter int           // failed probes in a row that make a healthy node unhealthy; 0 is 2
	HealthyAfter   int           // good probes in a row that make an unhealthy node healthy; 0 is 2
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

// check finds all that is wrong with the configuration as such; what hangs on zones is found by
// newSnapshot.
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
			fail("%v is no address to answer with", a)
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

// maxAddresses is how many addresses a node may have.
const maxAddresses = 64

// probed are the addresses that the node is probed at; one that is not valid stands for the host of
// the URL.
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

// probeOf is the URL to probe an address at.
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
		fail("all of its nodes are taken out, so that there is nothing to answer")
	}
	return errors.Join(errs...)
}

// choose gives the nodes of the edge name, which has been checked, in the order that it lists them
// in.
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

// snapshot is a validated Config in the form that queries are answered from. It does not change,
// but for the states of nodes.
type snapshot struct {
	generation uint64 // another in each configuration of a server

	zones   map[name]*Zone
	plain   map[name]*Zone // zones without challenges
	edges   []*edge
	locator *locator
	// geoipFault is why the database in use is not the one of the configuration; nil if it is.
	geoipFault error
	health     Health
	rates      rates
	nodes      []Node
	states     map[string]*nodeState // by node name

	numbers familyNumbers
	asked   map[*Zone]*prometheus.Counter // queries of each zone
}

// newSnapshot validates and builds. States are those known of nodes before; those of new nodes are
// added.
func newSnapshot(cfg Config, before *snapshot) (*snapshot, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	snap := &snapshot{
		zones: make(map[name]*Zone), health: cfg.Health.withDefaults(),
		rates: cfg.RateLimit.rates(), nodes: cfg.Nodes, states: make(map[string]*nodeState), numbers: make(familyNumbers),
	}
	if before != nil {
		snap.generation = before.generation + 1
	}
	for _, node := range cfg.Nodes {
		snap.states[node.Name] = newNodeState(node, before)
	}
	for _, z := range cfg.Zones {
		snap.zones[z.origin] = z
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
			return nil, fmt.Errorf("%w; and there is no copy of a good one: %w", snap.geoipFault, err)
		}
	}
	return snap, nil
}

// addEdges puts the edge names into the zones, where they must be able to stand.
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
			f.id = s.numbers.of(made, f, rrtype)
		}
		s.edges = append(s.edges, made)
		byZone[zone.origin] = append(byZone[zone.origin], made)
	}
	for origin, edges := range byZone {
		s.zones[origin] = s.zones[origin].withEdges(edges)
	}
	return errors.Join(errs...)
}

// Misfits tells, by the names of zones, why an edge name that should be in one can't stand there.
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

// fits tells why an edge name cannot stand where it is in the zone.
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

// zoneFor gives the closest zone above a name. For DS that is the parent's, at the apex of a zone
// whose parent is served too (RFC 4035 section 3.1.4.1).
func (s *snapshot) zoneFor(n name, ds bool) *Zone {
	var own *Zone
	for m := n; m != ""; m = m.parent() {
		if z := s.zones[m]; z != nil {
			if !ds || m != n {
				return z
			}
			own = z
		}
		if m.isRoot() {
			break
		}
	}
	return own
}
