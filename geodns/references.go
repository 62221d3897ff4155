package geodns

import (
	"iter"
	"strings"

	"github.com/miekg/dns"
)

// Reference is a record of a zone that names a host. Names are in lower case, without the dot at
// their end; the root is "".
type Reference struct {
	Owner  string
	Type   string // NS, MX, SRV, CNAME, DNAME or PTR
	Target string
	Line   int  // of the first record of its name and type, as Zone.At counts
	Cut    bool // it is an NS record that delegates
}

// References are the records of a zone that name hosts, in no order, those of one name and type in
// one row. What is below a delegation is of no consequence, and left out.
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
				ref := Reference{Owner: plainName(n), Type: dns.Type(set.rrtype).String(), Line: int(set.line), Cut: set.rrtype == dns.TypeNS && n != z.origin}
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

// referred is the name in the data of a type that refers.
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

// Found is what a zone has at a name.
type Found int

const (
	NoName    Found = iota // there is no such name, nor a wildcard that covers it
	NoAddress              // there is, without addresses
	Addressed              // there are addresses, be it as glue below a delegation
	Alias                  // there is a CNAME, or a DNAME above
	Elsewhere              // it is below a delegation, whose zone has it
)

// Find tells what the zone has at a name of its own, edge names apart.
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

// Signed finds the first record that DNSSEC puts into a signed zone. Line 0 means that there is
// none.
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

// Serial is that of the SOA record, and the record's line.
func (z *Zone) Serial() (serial uint32, line int) {
	return z.serial(), int(z.apex.set(dns.TypeSOA).line)
}
