package geodns

import (
	"maps"
	"slices"

	"github.com/miekg/dns"
)

// Bounds of the records that SetChallenges accepts.
const (
	maxChallenges = 1000 // names
	maxValues     = 32   // values per name
	maxText       = 255  // octets per value, which is one string (RFC 1035 section 3.3)
)

// SetChallenges serves records, a list of values for each name, as TXT records with TTL 0, in
// addition to the zones' own records. They are the answers to a certificate authority's challenges
// (RFC 8555 section 8.4). Each call replaces the records of the previous one. Once it has returned,
// every later query over UDP or TCP sees the new records. SetChallenges may be called at any time,
// from any goroutine. Reload keeps the records.
//
// A name may end in a dot, and may have upper case letters. A name with a challenge exists, and its
// ancestors exist as empty non-terminals. What a wildcard answers for those ancestors and their
// other descendants doesn't change. If the zone has a CNAME at the name, the CNAME stays and is the
// answer. Names outside of all zones, and names below a delegation or a DNAME, have no effect.
// SetChallenges omits malformed names, wildcards and empty values, and everything beyond 1000
// names, 32 values per name and 255 octets per value. It logs a warning with the number of
// omissions.
func (s *Server) SetChallenges(records map[string][]string) {
	made, omitted := newChallenges(records)
	if omitted > 0 {
		s.log().Warn("geodns: challenges left out: malformed, or too many", "count", omitted)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.challenges = made
	before := s.current.Load()
	if before == nil {
		return // the first Reload adds them
	}
	// Only the zones change. The generation stays, so what workers have chosen for clients stays
	// valid.
	snap := *before
	snap.zones = snap.challenged(made)
	s.metrics.zoneCounters(&snap, before)
	s.current.Store(&snap)
}

// newChallenges builds the TXT RRsets by name. It returns how many names and values it omitted.
func newChallenges(records map[string][]string) (made map[name]*rrset, omitted int) {
	made = make(map[name]*rrset, min(len(records), maxChallenges))
	for _, owner := range slices.Sorted(maps.Keys(records)) {
		n, err := nameOf(owner)
		if err != nil || n.isRoot() || n.isWildcard() || made[n] == nil && len(made) == maxChallenges {
			omitted++
			continue
		}
		set := made[n]
		if set == nil {
			set = &rrset{rrtype: dns.TypeTXT}
		}
		for _, value := range slices.Sorted(slices.Values(records[owner])) {
			if value == "" || len(value) > maxText || len(set.data) == maxValues {
				omitted++
				continue
			}
			set.add(string([]byte{byte(len(value))}) + value)
		}
		if len(set.data) > 0 {
			made[n] = set
		}
	}
	return made, omitted
}

// add appends a record unless the RRset has it already (RFC 2181 section 5). Only code that is
// still building the RRset may call it.
func (s *rrset) add(data string) {
	if !slices.Contains(s.data, data) {
		s.data = append(s.data, data)
	}
}

// challenged returns the zones with the challenge records added.
func (s *snapshot) challenged(records map[name]*rrset) map[name]*Zone {
	plain := snapshot{zones: s.plain}
	byZone := make(map[*Zone]map[name]*rrset)
	for n, set := range records {
		zone := plain.zoneFor(n, false)
		if zone == nil {
			continue
		}
		if byZone[zone] == nil {
			byZone[zone] = make(map[name]*rrset)
		}
		byZone[zone][n] = set
	}
	if len(byZone) == 0 {
		return s.plain
	}
	zones := maps.Clone(s.plain)
	for zone, sets := range byZone {
		zones[zone.origin] = zone.withChallenges(sets)
	}
	return zones
}

// withChallenges returns a copy of the zone with the given TXT records added. The copy shares all
// nodes with the zone, except those of the records and of the empty non-terminals above them. A
// challenge in a large zone therefore costs no more than one in a small zone.
func (z *Zone) withChallenges(records map[name]*rrset) *Zone {
	served := z.overlaid()
	for n, set := range records {
		found, at := z.lookup(n, false)
		switch {
		case found == delegation, found == redirect:
			continue // the zone has no authority there
		case found == exact && at.set(dns.TypeCNAME) != nil:
			continue // a CNAME has no other data beside it (RFC 1034 section 3.6.2)
		case found == exact:
			served.overlay[n] = at.withTXT(set)
			continue
		}
		made := served.ensure(n, at)
		made.sets, made.covered = []rrset{*set}, nil
	}
	if changed := served.overlay[z.origin]; changed != nil {
		served.apex = changed
	}
	served.sortOverlay()
	return served
}

// ensure returns the node of a name that the zone lacks. It creates the node and any missing
// ancestors. covered is the wildcard that covers the name, or nil. The wildcard still answers for
// names that exist only because of a challenge. Otherwise an order for a certificate would make
// sites unreachable.
func (z *Zone) ensure(n name, covered *node) *node {
	made := z.overlay[n]
	if made == nil {
		made = &node{name: n, wild: covered, covered: covered}
		z.overlay[n] = made
		if above := n.parent(); z.at(above) == nil {
			z.ensure(above, covered)
		}
	}
	return made
}

// withTXT returns a copy of the node with the given TXT records added. All TXT records of the node
// get the TTL of set (RFC 2181 section 5.2).
func (at *node) withTXT(set *rrset) *node {
	same := *at
	same.sets = slices.Clone(at.sets)
	if static := at.set(dns.TypeTXT); static != nil {
		both := *static
		both.ttl, both.data = set.ttl, slices.Clone(static.data)
		size := 0
		for _, data := range both.data {
			size += txtSize(data)
		}
		for _, data := range set.data {
			if size += txtSize(data); size <= maxSet {
				both.add(data)
			}
		}
		*same.set(dns.TypeTXT) = both
		return &same
	}
	same.sets = append(same.sets, *set)
	return &same
}

// txtSize returns an upper bound for the size of a record in a message, in octets. The zone parser
// sums up sizes with uncompressed owners too.
func txtSize(data string) int { return maxName + 10 + len(data) }
