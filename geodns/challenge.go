package geodns

import (
	"maps"
	"slices"

	"github.com/miekg/dns"
)

// Bounds of what SetChallenges takes.
const (
	maxChallenges = 1000 // names
	maxValues     = 32   // at a name
	maxText       = 255  // octets of a value: one string (RFC 1035 section 3.3)
)

// SetChallenges makes some values TXT records at their names, beside what the zones have there,
// with TTL 0: they are the answers to a certificate authority's challenges (RFC 8555 section 8.4).
// They take the place of those of the call before. When it returns each later query is answered
// from them, over UDP and TCP. It may be called at any time, from any goroutine; Reload keeps them.
//
// A name may have a dot at its end, and upper case. It exists then, also for wildcards and as an
// empty non-terminal above it, but what a wildcard answers for the names above it and beside it
// stays. A CNAME of the zone at the name stays, and is what is answered. Names that are in no zone,
// or below a delegation or a DNAME, change nothing. What is malformed, a wildcard, or more than
// 1000 names, 32 values at a name and 255 octets a value, is left out, with a warning.
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
		return // Reload does the rest
	}
	snap := *before // but for the zones all of it is the same, and so what was chosen for clients holds
	snap.zones = snap.challenged(made)
	s.metrics.zoneCounters(&snap, before)
	s.current.Store(&snap)
}

// newChallenges makes TXT records, and counts what was left out.
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

// add adds a record, unless it is there (RFC 2181 section 5). It is for sets that are being made.
func (s *rrset) add(data string) {
	if !slices.Contains(s.data, data) {
		s.data = append(s.data, data)
	}
}

// challenged gives the zones with challenges.
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

// withChallenges gives a zone that has TXT records too. The zone itself is left as it is, and
// shares all nodes but those of the records and the empty non-terminals above them, so that a large
// zone costs no more than a small one.
func (z *Zone) withChallenges(records map[name]*rrset) *Zone {
	served := z.overlaid()
	for n, set := range records {
		found, at := z.lookup(n, false)
		switch {
		case found == delegation, found == redirect:
			continue // no data of ours
		case found == exact && at.set(dns.TypeCNAME) != nil:
			continue // a CNAME is alone (RFC 1034 section 3.6.2)
		case found == exact:
			served.over[n] = at.withTXT(set)
			continue
		}
		made := served.ensure(n, at)
		made.sets, made.covered = []rrset{*set}, nil
	}
	if changed := served.over[z.origin]; changed != nil {
		served.apex = changed
	}
	return served
}

// ensure gives the node of a name that the zone does not have, made with those above it if need be.
// covered is the wildcard that covers it, nil if none does: to take a name away from it that is
// there for a challenge's sake alone, and all others below that, would take sites away from their
// clients while a certificate is ordered.
func (z *Zone) ensure(n name, covered *node) *node {
	made := z.over[n]
	if made == nil {
		made = &node{name: n, wild: covered, covered: covered}
		z.over[n] = made
		if above := n.parent(); z.at(above) == nil {
			z.ensure(above, covered)
		}
	}
	return made
}

// withTXT gives a node that has some TXT records more. All of its have their TTL (RFC 2181 section
// 5.2).
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

// txtSize is what a record takes in a message, its owner compressed, or not as in a zone that is
// checked.
func txtSize(data string) int { return maxName + 10 + len(data) }
