package geodns

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/miekg/dns"
)

// Explanation tells what a client would be answered for an edge name, and why.
type Explanation struct {
	Name    string       // the edge name: a wildcard where one covers the name asked about
	Zone    string       // the zone that it is in
	Client  netip.Addr   //
	Place   *Place       // where the client is; nil where no source knows
	Source  string       // "locate", "geoip" or "countries"; "" where no source knows
	Country string       // ISO 3166-1 alpha-2, where the source went by country
	Network netip.Prefix // of the client, all of which is there
	Nodes   []Explained  // the name's nodes, nearest first
}

// Explained is a node of an Explanation.
type Explained struct {
	Node     string
	Distance float64 // km; 0 where the client's place is not known
	Healthy  bool    // false also of a node that is probed and was not yet
	A, AAAA  bool    // whether the node is in the answer to each
}

// Explain explains the answer to a client whose subnet is known: that is, to one that asks from client, or through a
// resolver that sends all of its address. Without Serve no node that is probed counts as healthy. It is an error if there
// is no configuration, or the name is no edge name.
func (s *Server) Explain(edgeName string, client netip.Addr) (*Explanation, error) {
	snap := s.current.Load()
	if snap == nil {
		return nil, errors.New("geodns: not configured")
	}
	n, err := nameOf(edgeName)
	if err != nil {
		return nil, err
	}
	zone := snap.zoneFor(n, false)
	if zone == nil {
		return nil, fmt.Errorf("%s is in none of the zones", n)
	}
	found, at := zone.lookup(n, false)
	if (found != exact && found != wildcard) || at.edge == nil {
		return nil, fmt.Errorf("%s is not an edge name", n)
	}
	e, client := at.edge, client.Unmap()
	where := snap.locator.find(client)
	x := &Explanation{
		Name: e.name.String(), Zone: zone.Name(), Client: client,
		Place: where.place, Source: where.source, Country: where.country,
	}
	x.Network, _ = client.Prefix(where.bits)

	answered := make(map[uint16]map[*nodeState]bool)
	r := resolver{snapshot: snap, q: new(query), from: client}
	for rrtype, f := range e.families {
		answered[rrtype] = make(map[*nodeState]bool)
		picked, _, _ := r.pick(e, f)
		for _, p := range picked {
			answered[rrtype][f.candidates[p.index].node] = true
		}
	}
	order, _ := choose(where.place, e.places, func(int) bool { return true })
	for _, p := range order {
		state := e.nodes[p.index]
		x.Nodes = append(x.Nodes, Explained{
			Node: state.name, Distance: p.distance, Healthy: state.isHealthy(),
			A: answered[dns.TypeA][state], AAAA: answered[dns.TypeAAAA][state],
		})
	}
	return x, nil
}
