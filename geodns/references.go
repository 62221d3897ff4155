package geodns

import (
	"iter"
	"strings"

	"github.com/miekg/dns"
)

// Reference is a record that refers to a host. Names are in lower case and without the final dot.
// The root is "".
type Reference struct {
	Owner  string
	Type   string // NS, MX, SRV, CNAME, DNAME or PTR
	Target string
	// Line is the line of the first record of this name and type, from 1, as in Zone.At.
	Line int
	Cut  bool // it is an NS record of a delegation
}

// References returns the zone's records that refer to hosts, in no order. Records of one name and
// type come one after the other. Records below a delegation are left out, because they have no
// effect.
func (z *Zone) References() iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		for n, at := range z.nodes {
			for i := range at.sets {
				set := &at.sets[i]
				if !refers(set.rrtype) {
					continue
				}
				if found, where := z.lookup(n, false); found == delegation && where.name != n {
					break
				}
				ref := Reference{Owner: plainName(n), Type: dns.Type(set.rrtype).String(), Line: int(set.line),
					Cut: set.rrtype == dns.TypeNS && n != z.origin}
				for _, data := range set.data {
					ref.Target = plainName(lowered(referred(set.rrtype, data)))
					if !yield(ref) {
						return
					}
				}
			}
		}
	}
}

func refers(rrtype uint16) bool {
	switch rrtype {
	case dns.TypeNS, dns.TypeMX, dns.TypeSRV, dns.TypeCNAME, dns.TypeDNAME, dns.TypePTR:
		return true
	}
	return false
}

// referred returns the name in the data of a record whose type refers to hosts.
func referred(rrtype uint16, data string) string {
	switch rrtype {
	case dns.TypeMX:
		return data[2:]
	case dns.TypeSRV:
		return data[6:]
	}
	return data
}

func plainName(n name) string { return strings.TrimSuffix(n.String(), ".") }

// Found says what a zone has at a name.
type Found int

const (
	NoName    Found = iota // the name doesn't exist, and no wildcard covers it
	NoAddress              // the name exists and has no address
	Addressed              // the name has addresses, possibly as glue below a delegation
	Alias                  // the name has a CNAME, or is below a DNAME
	Elsewhere              // the name is below a delegation, so another zone has it
)

// Find reports what the zone has at host. It ignores edge names. A name outside of the zone is
// NoName.
func (z *Zone) Find(host string) Found {
	n, err := nameOf(host)
	if err != nil || !n.within(z.origin) {
		return NoName
	}
	found, at := z.lookup(n, false)
	switch {
	case found == missing:
		return NoName
	case found == redirect:
		return Alias
	case found == delegation:
		if glue := z.at(n); glue != nil && glue.set(dns.TypeA) == nil && glue.set(dns.TypeAAAA) == nil || glue == nil {
			return Elsewhere
		}
		return Addressed
	case at.set(dns.TypeCNAME) != nil:
		return Alias
	case at.set(dns.TypeA) != nil || at.set(dns.TypeAAAA) != nil:
		return Addressed
	}
	return NoAddress
}

// Signed returns the type and line of the first record of a type that DNSSEC adds to signed zones.
// line is 0 if there is none.
func (z *Zone) Signed() (rrtype string, line int) {
	for _, at := range z.nodes {
		for i := range at.sets {
			switch set := &at.sets[i]; set.rrtype {
			case dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM, dns.TypeDNSKEY:
				if line == 0 || int(set.line) < line {
					rrtype, line = dns.Type(set.rrtype).String(), int(set.line)
				}
			}
		}
	}
	return rrtype, line
}

// Serial returns the serial of the SOA record, and the record's line as in Zone.At.
func (z *Zone) Serial() (serial uint32, line int) {
	return z.serial(), int(z.apex.set(dns.TypeSOA).line)
}
