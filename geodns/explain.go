package geodns

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Leads reports whether the configuration makes a name lead somewhere: the name is an edge name,
// has an A, AAAA or CNAME record, or is below a delegation or a DNAME. It returns false for a name
// in none of the zones.
func (s *Server) Leads(host string) bool {
	snap := s.current.Load()
	n, err := nameOf(host)
	if snap == nil || err != nil {
		return false
	}
	zone := snap.zoneFor(n, false)
	if zone == nil {
		return false
	}
	switch found, at := zone.lookup(n, false); found {
	case missing:
		return false
	case delegation, redirect:
		return true
	default:
		return at.edge != nil || at.address() != nil
	}
}

// Explanation describes how an edge name is answered for a client, and why.
type Explanation struct {
	Name    string // the edge name, or the wildcard that covers the requested name
	Zone    string // the zone that the name is in
	Client  netip.Addr
	Place   *Place       // where the client is; nil if no source knows
	Source  string       // "locate", "geoip" or "countries"; "" if no source knows
	Country string       // ISO 3166-1 alpha-2, if the source only knew the country
	Network netip.Prefix // the client's network for which Place holds
	Sharing netip.Prefix // the client's network by which the nodes of a group share clients
	// Scope is the scope of the answer to a query with the client's whole address. The query is for
	// A, or for AAAA if no node has an IPv4 address.
	Scope   int
	Answers int    // number of nodes in an answer
	IPv6    string // how AAAA is answered, if some nodes have no IPv6; else ""
	// Nodes are the name's nodes: first those that may be in an answer, best first, then the
	// others.
	Nodes []Explained
}

// Explained is a node of an Explanation.
type Explained struct {
	Node     string
	Distance float64 // km; 0 if the client's place is unknown
	Region   string
	Place    Place
	Group    string  // the first node of its group; nodes at one place are a group
	Weight   float64 // its share of the group's clients, relative to the others
	Healthy  bool    // false also for a node that hasn't been probed yet
	// Dead lists the addresses that don't answer, separated by spaces. It is empty if the whole
	// node is down.
	Dead     string
	Draining bool
	Stale    bool
	Load     float64 // 0 to 1, as in the registry
	Shed     float64 // 0 to 1: the share of its clients to send elsewhere
	A, AAAA  bool    // whether the node is in the answer to A and to AAAA
	Reason   string  // why the node has this rank
}

// Explain explains how edgeName is answered for a client whose whole address is known: one that
// asks the server directly, or through a resolver that sends its whole address. Unless Serve or
// Probe has probed the nodes, no node with a probe counts as healthy. Explain returns an error if
// there is no configuration, or if edgeName is no edge name and no wildcard covers it.
func (s *Server) Explain(edgeName string, client netip.Addr) (*Explanation, error) {
	snap := s.current.Load()
	if snap == nil {
		return nil, errors.New("geodns: not configured")
	}
	zone, e, err := snap.edgeOf(edgeName)
	if err != nil {
		return nil, err
	}
	client = client.Unmap()
	where := snap.locator.find(client, new(Place))
	x := &Explanation{
		Name: e.name.String(), Zone: zone.Name(), Client: client, Answers: e.answers,
		Place: where.place, Source: where.source, Country: where.country,
	}
	x.Network, _ = client.Prefix(where.bits)
	sharing, hash := clientNetwork(client)
	x.Sharing, _ = client.Prefix(sharing)

	r := resolver{snapshot: snap, q: new(query), from: client}
	answered := make(map[uint16]map[*nodeState]bool)
	for rrtype, f := range e.families {
		answered[rrtype] = make(map[*nodeState]bool)
		picked, _, _ := r.pick(e, f)
		for _, p := range picked {
			answered[rrtype][f.candidates[p.index].node] = true
		}
	}
	for _, rrtype := range []uint16{dns.TypeAAAA, dns.TypeA} {
		if f := e.families[rrtype]; f != nil {
			_, x.Scope, _ = r.pick(e, f)
		}
	}
	x.IPv6 = e.explainIPv6(where.place, answered[dns.TypeAAAA])
	x.Nodes = append(e.explainRanked(where.place, hash), e.explainWeightless(where.place, snap)...)
	for i := range x.Nodes {
		node := &x.Nodes[i]
		for _, n := range snap.nodes {
			if n.Name == node.Node {
				node.Region = n.Region
			}
		}
		for _, state := range e.nodes {
			if state.name == node.Node {
				node.A, node.AAAA = answered[dns.TypeA][state], answered[dns.TypeAAAA][state]
			}
		}
	}
	return x, nil
}

// edgeOf returns the edge name at edgeName, or the wildcard edge name that covers it, and its zone.
func (s *snapshot) edgeOf(edgeName string) (*Zone, *edge, error) {
	n, err := nameOf(edgeName)
	if err != nil {
		return nil, nil, err
	}
	zone := s.zoneFor(n, false)
	if zone == nil {
		return nil, nil, fmt.Errorf("%s is in none of the zones", n)
	}
	found, at := zone.lookup(n, false)
	if (found != exact && found != wildcard) || at.edge == nil {
		return nil, nil, fmt.Errorf("%s is not an edge name", n)
	}
	return zone, at.edge, nil
}

// explainRanked explains the ranked nodes in their order for a client, and after them the nodes
// that are left out because of their standing.
func (e *edge) explainRanked(at *Place, hash uint64) []Explained {
	options := make([]option, len(e.nodes))
	for i, node := range e.nodes {
		options[i] = e.fixed[i]
		options[i].state = node.now()
	}
	var out []Explained
	order, best, _ := choose(at, hash, options, e.answers, nil)
	for i, p := range order {
		out = append(out, e.explain(options, p, reason(at, order, i, best)))
	}
	for i, o := range options {
		if o.standing == best {
			continue
		}
		p := ranked{index: i}
		if at != nil {
			p.distance = at.Distance(o.place)
		}
		why := "unhealthy, while others are healthy"
		if o.standing == degraded {
			why = "draining or behind with purges, while others are not"
		}
		out = append(out, e.explain(options, p, why))
	}
	return out
}

// explainWeightless explains the nodes that have weight 0 in the fleet file.
func (e *edge) explainWeightless(at *Place, snap *snapshot) []Explained {
	var all []Explained
	for _, node := range e.out {
		out := Explained{Node: node.Name, Place: node.Place, Healthy: snap.states[node.Name].isHealthy(),
			Reason: "not used, because its weight is 0"}
		if at != nil {
			out.Distance = at.Distance(node.Place)
		}
		all = append(all, out)
	}
	return all
}

// explainIPv6 says how AAAA is answered for a client at a place, and why. answered is the set of
// nodes in the answer. explainIPv6 returns "" if every node has an IPv6 address that answers.
func (e *edge) explainIPv6(at *Place, answered map[*nodeState]bool) string {
	f := e.families[dns.TypeAAAA]
	if !f.partial() {
		return ""
	}
	best, bestIPv6 := down, down
	for i, c := range f.candidates {
		standing := c.node.now().standing
		best = min(best, standing)
		if !f.isUnreachable(i) {
			bestIPv6 = min(bestIPv6, standing)
		}
	}
	if bestIPv6 > best {
		return "no AAAA: no edge with IPv6 has as good a state as those without"
	}
	if at == nil {
		return "some edges have no IPv6, and the client's place is unknown"
	}
	nearest := func(unreachable bool) (name string, away float64) {
		away = math.Inf(1)
		for i, c := range f.candidates {
			if d := at.Distance(f.fixed[i].place); f.isUnreachable(i) == unreachable && c.node.now().standing == best &&
				d < away {
				name, away = c.node.name, d
			}
		}
		return name, away
	}
	without, lacking := nearest(true)
	with, away := nearest(false)
	switch {
	case away <= lacking:
		return "the nearest edge has it"
	case len(answered) == 0:
		return fmt.Sprintf("no AAAA: %s has no IPv6, and %s, the nearest edge with IPv6, is %.0f km farther (the limit is %d km), so clients use IPv4", without, with, away-lacking, muchFarther)
	default:
		return fmt.Sprintf("%s has no IPv6; %s, the nearest edge with IPv6, is %.0f km farther (the limit is %d km), so it is in AAAA",
			without, with, away-lacking, muchFarther)
	}
}

// explain returns the explanation of one node.
func (e *edge) explain(options []option, p ranked, why string) Explained {
	o, node := options[p.index], e.nodes[p.index]
	x := Explained{Node: node.name, Distance: p.distance, Place: o.place, Weight: o.weight, Healthy: node.isHealthy(),
		Shed: o.shed, Reason: why}
	if x.Healthy {
		for _, e := range node.endpoints {
			if e.isDead() {
				x.Dead = strings.TrimLeft(x.Dead+" "+e.addr.String(), " ")
			}
		}
	}
	if r := node.report.Load(); r != nil {
		x.Draining, x.Stale, x.Load = r.Draining, r.Stale, r.Load
	}
	for i := range options {
		if options[i].group == o.group {
			x.Group = e.nodes[i].name
			break
		}
	}
	return x
}

// reason says why a node is number i in order.
func reason(at *Place, order []ranked, i int, best standing) string {
	p, why := order[i], ""
	switch {
	case at == nil:
		why = "in the order of the fleet file, because the client's place is unknown"
	case i > 0 && order[i-1].group == p.group:
		why = "in the same place as the previous one"
	case i == 0 && len(order) > groupLen(order) && order[groupLen(order)].near < p.near:
		why = "the next nearest place: the nearest is near its capacity, and hands over the clients that lose least"
	case i == 0:
		why = "the nearest place"
	default:
		why = "farther"
	}
	if p.score > 0 {
		why += "; the client's network selects among the nodes of the place"
	}
	switch best {
	case down:
		why += "; no node is healthy, so all count"
	case degraded:
		why += "; all healthy nodes are draining or behind with purges"
	}
	return why
}
