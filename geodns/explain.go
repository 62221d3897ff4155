package geodns

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Leads reports whether a name leads anywhere by the configuration: it has addresses or an alias,
// is an edge name, or is below a delegation. A name in none of the zones doesn't.
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

// Explanation tells what a client would be answered for an edge name, and why.
type Explanation struct {
	Name    string       // the edge name: a wildcard where one covers the name asked about
	Zone    string       // the zone that it is in
	Client  netip.Addr   //
	Place   *Place       // where the client is; nil where no source knows
	Source  string       // "locate", "geoip" or "countries"; "" where no source knows
	Country string       // ISO 3166-1 alpha-2, where the source went by country
	Network netip.Prefix // of the client, all of which is there
	Sharing netip.Prefix // of the client, by which nodes of one place share their clients
	Scope   int          // of an answer to A, or to AAAA where there are no IPv4 addresses, for a query with the whole address
	Answers int          // how many nodes are answered
	IPv6    string       // what becomes of AAAA, where some of the nodes have no IPv6 address; else ""
	Nodes   []Explained  // the name's nodes: those that may be answered in their order, then the others
}

// Explained is a node of an Explanation.
type Explained struct {
	Node     string
	Distance float64 // km; 0 where the client's place is not known
	Region   string
	Place    Place
	Group    string  // the first of the nodes that are of one place with it
	Weight   float64 // its share among those
	Healthy  bool    // false also of a node that is probed and was not yet
	Dead     string  // addresses that don't answer, separated by spaces, of a node that does at others
	Draining bool
	Stale    bool
	Load     float64 // 0 to 1, as the registry has it
	Shed     float64 // 0 to 1: how much of what it could get is to go elsewhere
	A, AAAA  bool    // whether the node is in the answer to each
	Reason   string  // why it stands where it stands
}

// Explain explains the answer to a client whose subnet is known: that is, to one that asks from
// client, or through a resolver that sends all of its address. Without Serve no node that is probed
// counts as healthy. It is an error if there is no configuration, or the name is no edge name.
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
	x.IPv6 = e.explainSix(where.place, answered[dns.TypeAAAA])
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

// edgeOf returns the edge name that a name is or that its wildcard is, and its zone.
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

// explainRanked explains the nodes that may be in an answer, in their order for a place, and then
// those that their state keeps out of it.
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
		why := "unhealthy, and others are not"
		if o.standing == away {
			why = "draining or behind with purges, and others are not"
		}
		out = append(out, e.explain(options, p, why))
	}
	return out
}

// explainWeightless explains the nodes that the fleet file gives a weight of 0.
func (e *edge) explainWeightless(at *Place, snap *snapshot) []Explained {
	var all []Explained
	for _, node := range e.out {
		out := Explained{Node: node.Name, Place: node.Place, Healthy: snap.states[node.Name].isHealthy(), Reason: "taken out, by its weight of 0"}
		if at != nil {
			out.Distance = at.Distance(node.Place)
		}
		all = append(all, out)
	}
	return all
}

// explainSix tells why AAAA is answered as it is for a place, with the nodes given, where some
// nodes lack addresses of IPv6.
func (e *edge) explainSix(at *Place, answered map[*nodeState]bool) string {
	f := e.families[dns.TypeAAAA]
	if !f.partial() {
		return ""
	}
	best, bestSix := down, down
	for i, c := range f.candidates {
		standing := c.node.now().standing
		best = min(best, standing)
		if !f.lacks(i) {
			bestSix = min(bestSix, standing)
		}
	}
	if bestSix > best {
		return "no AAAA: no edge with IPv6 is as well as those without"
	}
	if at == nil {
		return "some edges have no IPv6; which is near nobody knows"
	}
	nearest := func(lacks bool) (name string, away float64) {
		away = math.Inf(1)
		for i, c := range f.candidates {
			if d := at.Distance(f.fixed[i].place); f.lacks(i) == lacks && c.node.now().standing == best && d < away {
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
		return fmt.Sprintf("no AAAA: %s has no IPv6, and %s, the nearest that has, is %.0f km farther (%d at most), so that clients use IPv4", without, with, away-lacking, muchFarther)
	default:
		return fmt.Sprintf("%s has no IPv6; %s, the nearest that has, is %.0f km farther (%d at most) and is answered", without, with, away-lacking, muchFarther)
	}
}

// explain tells of one node.
func (e *edge) explain(options []option, p ranked, why string) Explained {
	o, node := options[p.index], e.nodes[p.index]
	x := Explained{Node: node.name, Distance: p.distance, Place: o.place, Weight: o.weight, Healthy: node.isHealthy(), Shed: o.shed, Reason: why}
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

// reason tells why a node is the i-th.
func reason(at *Place, order []ranked, i int, best standing) string {
	p, why := order[i], ""
	switch {
	case at == nil:
		why = "in the order of the file, as nobody knows where the client is"
	case i > 0 && order[i-1].group == p.group:
		why = "of one place with the one before"
	case i == 0 && len(order) > groupLen(order) && order[groupLen(order)].near < p.near:
		why = "the next nearest place: the nearest has too much to do, and this client loses least"
	case i == 0:
		why = "the nearest place"
	default:
		why = "farther"
	}
	if p.score > 0 {
		why += "; the client's network decides among the nodes of the place"
	}
	switch best {
	case down:
		why += "; no node is healthy, so all are taken"
	case away:
		why += "; all healthy nodes are draining or behind with purges"
	}
	return why
}
