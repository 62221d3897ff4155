package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// zoneAudit checks what the records of zones refer to. It finds records that parse but break a
// domain or its mail. What certainly breaks is an error. What may be intended, or breaks only a
// part, is a warning. Names are in lower case, without the final dot.
type zoneAudit struct {
	fleet *Fleet
	zones map[string]*geodns.Zone
	edges map[string][]string // edge names, with the nodes that may be in their answers
	found []finding
}

// finding is an error or a warning about a record.
type finding struct {
	zone  *geodns.Zone
	line  int               // of the first record of the set, as geodns.Zone.At counts
	is    func(string) bool // reports whether a word of the line is the one to point at
	after string            // the record type, which comes before the word; "" means any place
	warn  bool
	msg   string
}

// auditZones checks zones that have been read.
func (f *Fleet) auditZones(zones []*geodns.Zone) {
	a := &zoneAudit{fleet: f, zones: map[string]*geodns.Zone{}, edges: map[string][]string{}}
	for _, z := range zones {
		a.zones[strings.TrimSuffix(z.Name(), ".")] = z
	}
	for i := range f.GeoDNS.Zones {
		z := &f.GeoDNS.Zones[i]
		for j := range z.Edges {
			a.edges[z.Edges[j].FQDN(z)] = z.Edges[j].Nodes
		}
	}
	for _, z := range zones {
		if rrtype, line := z.Signed(); line > 0 {
			a.say(false, z, line, "", func(word string) bool { return strings.EqualFold(word, rrtype) },
				"the zone file has signatures (%s), which can't be of the edges' answers: give the zone without them, and have the name servers sign it by the key dnssec of the zone in the fleet file", rrtype)
		}
		var set []geodns.Reference
		for ref := range z.References() {
			if len(set) > 0 && (set[0].Owner != ref.Owner || set[0].Type != ref.Type) {
				a.set(z, set)
				set = set[:0]
			}
			set = append(set, ref)
		}
		a.set(z, set)
		a.addresses(z)
	}
	a.report()
}

func (a *zoneAudit) say(warn bool, z *geodns.Zone, line int, after string, is func(string) bool, format string,
	args ...any) {
	a.found = append(a.found, finding{z, line, is, after, warn, fmt.Sprintf(format, args...)})
}

func (a *zoneAudit) about(ref geodns.Reference, warn bool, z *geodns.Zone, format string, args ...any) {
	a.say(warn, z, ref.Line, ref.Type, func(word string) bool {
		word = strings.ToLower(word)
		return word == "@" || strings.TrimSuffix(word, ".") == ref.Target || strings.HasPrefix(ref.Target, word+".")
	}, format, args...)
}

// set checks the records of one name and type.
func (a *zoneAudit) set(z *geodns.Zone, refs []geodns.Reference) {
	usable := 0
	var poor []geodns.Reference // records whose target has no address
	for _, ref := range refs {
		switch a.target(z, ref) {
		case usableTarget:
			usable++
		case poorTarget:
			poor = append(poor, ref)
		}
	}
	for _, ref := range poor {
		a.poor(z, ref, usable > 0)
	}
}

type targetVerdict int

const (
	usableTarget targetVerdict = iota
	poorTarget                 // the target has no address
	toldTarget                 // an error or warning was added already
)

// target checks what one record refers to.
func (a *zoneAudit) target(z *geodns.Zone, ref geodns.Reference) targetVerdict {
	within := a.relative(z, ref.Target)
	_, notIP := netip.ParseAddr(cmp.Or(within, ref.Target))
	nodes, isEdge := a.edge(ref.Target)
	zone := a.zoneOf(ref.Target)
	switch {
	case ref.Target == "":
		if ref.Type != "NS" {
			return usableTarget // an empty target means that there is no such service (RFC 7505, RFC 2782)
		}
		a.about(ref, false, z, "NS names no server: write the name of one")
	case notIP == nil && (ref.Type == "CNAME" || ref.Type == "DNAME"):
		a.about(ref, false, z, "%s wants a name, and %s is an address: use an A or AAAA record", ref.Type,
			cmp.Or(within, ref.Target))
	case notIP == nil:
		a.about(ref, false, z, "%s wants a name, and %s is an address: give it to a name by an A or AAAA record, and write that name here", ref.Type, cmp.Or(within, ref.Target))
	case isEdge:
		return a.edgeTarget(z, ref, nodes)
	case zone == nil:
		return usableTarget // the target is in no zone of the fleet
	case zone.Find(ref.Target) == geodns.NoName && a.twice(z, ref.Target):
		a.about(ref, false, z, "%s %s has no dot at its end, so it means %s: write %s.", ref.Type, within,
			ref.Target, within)
	default:
		return a.kind(z, ref, zone.Find(ref.Target))
	}
	return toldTarget
}

// kind judges a target by what its zone has at that name.
func (a *zoneAudit) kind(z *geodns.Zone, ref geodns.Reference, found geodns.Found) targetVerdict {
	switch {
	case found == geodns.Alias && ref.Type == "NS":
		a.about(ref, false, z, "the name server %s is an alias (CNAME or DNAME), which resolvers don't follow (RFC 2181, 10.3): name the server that it leads to, or give it A or AAAA records", ref.Target)
		return toldTarget
	case found == geodns.Alias && (ref.Type == "MX" || ref.Type == "SRV"):
		a.about(ref, true, z, "%s is an alias (CNAME or DNAME), which %s must not name (RFC 2181, 10.3), so some don't find it: name the host that it leads to", ref.Target, ref.Type)
	case found == geodns.Elsewhere && ref.Cut &&
		(ref.Target == ref.Owner || strings.HasSuffix(ref.Target, "."+ref.Owner)):
		return poorTarget
	case ref.Type == "CNAME" && found == geodns.NoName && !strings.HasPrefix(ref.Owner, "_"):
		// a name that begins with _ is exempt: the target may be a challenge that is yet to come
		a.about(ref, true, z, "the alias %s leads nowhere, because there is no %s%s",
			cmp.Or(a.relative(z, ref.Owner), ref.Owner), ref.Target, a.orWhole(z, ref.Target))
	case ref.Type == "PTR" && found == geodns.NoName && a.orWhole(z, ref.Target) != "":
		a.about(ref, true, z, "there is no %s%s", ref.Target, a.orWhole(z, ref.Target))
	case (ref.Type == "NS" || ref.Type == "MX" || ref.Type == "SRV") &&
		(found == geodns.NoName || found == geodns.NoAddress):
		return poorTarget
	}
	return usableTarget
}

// edgeTarget judges an edge name as the target of a record.
func (a *zoneAudit) edgeTarget(z *geodns.Zone, ref geodns.Reference, nodes []string) targetVerdict {
	switch ref.Type {
	case "NS":
		all := !slices.ContainsFunc(a.fleet.Nodes, func(n Node) bool {
			return n.Has(RoleEdge) && !n.Has(RoleGeoDNS) && (len(nodes) == 0 || slices.Contains(nodes, n.Name))
		})
		const mend = "the zone above needs addresses that stay: name it otherwise, with A or AAAA records of nodes with the role geodns"
		if a.about(ref, all, z, "the name server %s is an edge name, which is answered with the edges near a client: %s", ref.Target, mend); !all {
			return toldTarget
		}
	case "MX":
		a.about(ref, true, z, "%s is an edge name, and edges take no mail: name the mail server", ref.Target)
	}
	return usableTarget
}

// poor reports a target without an address. others reports whether the set has another target that
// can be used.
func (a *zoneAudit) poor(z *geodns.Zone, ref geodns.Reference, others bool) {
	name := cmp.Or(a.relative(z, ref.Target), ref.Target)
	switch {
	case ref.Cut && strings.HasSuffix(ref.Target, ref.Owner):
		a.about(ref, others, z, "the delegation of %s has no address for its name server %s, which is below it, so nobody finds it: add one as glue, such as: %s IN A 192.0.2.53", ref.Owner, ref.Target, name)
	case ref.Type == "NS":
		a.about(ref, others, z, "the zone has no address of the name server %s, so nobody finds it: add its A or AAAA record%s", ref.Target, a.orWhole(z, ref.Target))
	default:
		a.about(ref, others || ref.Type == "SRV", z, "%s names %s, which has no address: add its A or AAAA record%s",
			ref.Type, ref.Target, a.orWhole(z, ref.Target))
	}
}

// orWhole returns a hint for a relative name that was perhaps meant as a fully qualified one,
// or "".
func (a *zoneAudit) orWhole(z *geodns.Zone, target string) string {
	if rel := a.relative(z, target); strings.Contains(rel, ".") {
		return fmt.Sprintf(", or write %s. if that is the whole name", rel)
	}
	return ""
}

// relative returns a name relative to the zone, or "" if it is not below the zone.
func (a *zoneAudit) relative(z *geodns.Zone, name string) string {
	rel, below := strings.CutSuffix(name, "."+strings.TrimSuffix(z.Name(), "."))
	if !below {
		return ""
	}
	return rel
}

// twice reports whether a name ends in the zone's name twice. That happens to a fully qualified
// name that is written without the final dot.
func (a *zoneAudit) twice(z *geodns.Zone, name string) bool {
	origin := strings.TrimSuffix(z.Name(), ".")
	rel := a.relative(z, name)
	return rel == origin || strings.HasSuffix(rel, "."+origin)
}

// zoneOf returns the closest zone that contains a name, or nil.
func (a *zoneAudit) zoneOf(name string) *geodns.Zone {
	for more := true; more; _, name, more = strings.Cut(name, ".") {
		if z := a.zones[name]; z != nil {
			return z
		}
	}
	return nil
}

// edge reports whether a name is an edge name, or is covered by a wildcard that is one, and returns
// the nodes that the edge name lists.
func (a *zoneAudit) edge(name string) (nodes []string, is bool) {
	if nodes, is = a.edges[name]; is {
		return nodes, true
	}
	if z := a.zoneOf(name); z == nil || z.Find(name) != geodns.NoName {
		return nil, false
	}
	for _, above, more := strings.Cut(name, "."); more; _, above, more = strings.Cut(above, ".") {
		if nodes, is = a.edges["*."+above]; is {
			return nodes, true
		}
	}
	return nil, false
}

// addresses reports name servers of a zone whose addresses belong to no node with the role geodns.
func (a *zoneAudit) addresses(z *geodns.Zone) {
	var served []netip.Addr
	for _, n := range a.fleet.Nodes {
		if n.Has(RoleGeoDNS) {
			if len(n.Addresses) == 0 {
				return // the addresses may be this node's
			}
			served = append(served, n.Addresses...)
		}
	}
	if len(served) == 0 {
		return
	}
	others := false // some name server is a node or outside of the zone
	servers := z.NameServers()
	for _, ns := range servers {
		_, isEdge := a.edges[ns.Name]
		others = others || !ns.Inside || isEdge ||
			slices.ContainsFunc(ns.Addrs, func(addr netip.Addr) bool { return slices.Contains(served, addr) })
	}
	for _, ns := range servers {
		for i, addr := range ns.Addrs {
			if slices.Contains(served, addr) {
				continue
			}
			is := func(word string) bool { got, err := netip.ParseAddr(word); return err == nil && got == addr }
			if others {
				a.say(true, z, ns.AddrLines[i], "", is,
					"%s of the name server %s is no node with the role geodns: does a server outside of the fleet answer there?", addr, ns.Name)
			} else {
				a.say(false, z, ns.AddrLines[i], "", is,
					"%s of the name server %s is no node with the role geodns, and neither is any other name server of the zone, so nobody asks the fleet: write the address of one, such as %s", addr, ns.Name, served[0])
			}
		}
	}
}

// report adds the findings to the errors and warnings of the fleet file, sorted by zone and line.
func (a *zoneAudit) report() {
	slices.SortStableFunc(a.found, func(x, y finding) int {
		return cmp.Or(cmp.Compare(x.zone.Name(), y.zone.Name()), cmp.Compare(x.line, y.line), cmp.Compare(x.msg, y.msg))
	})
	sources := zoneSources{fleet: a.fleet}
	for _, found := range a.found {
		told := sources.place(found)
		if found.warn {
			a.fleet.file.warns = append(a.fleet.file.warns, told)
		} else {
			a.fleet.file.errs = append(a.fleet.file.errs, told)
		}
	}
}
