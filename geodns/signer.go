package geodns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/miekg/dns"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// keyTTL is the TTL of the records that show a zone's keys, in seconds. A rollover waits for it.
const keyTTL = 3600

// signer signs the records of a zone. It is immutable.
type signer struct {
	zone name
	keys dnssec.Keys
	id   [8]byte // differs between signers whose signatures differ
}

func newSigner(zone name, keys dnssec.Keys) *signer {
	s := &signer{zone: zone, keys: keys}
	text := []byte(zone)
	for _, key := range keys {
		text = append(append(text, key.State...), key.DNSKEY()...)
	}
	binary.LittleEndian.PutUint64(s.id[:], xxhash.Sum64(text))
	return s
}

// sign returns the data of the RRSIG records of an RRset. All keys sign the DNSKEY records, so that
// a DS of any of them leads to all (RFC 6781 section 4.1.3).
func (s *signer) sign(set dnssec.RRset, begin int64) ([]string, error) {
	set.Signer = string(s.zone)
	keys := s.keys
	if set.Type != dns.TypeDNSKEY {
		keys = dnssec.Keys{s.keys.Signer()}
	}
	var all []string
	for _, key := range keys {
		data, err := key.Signature(set, begin)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

// withKeys returns a copy of the zone that is signed with keys. Its apex has their records.
func (z *Zone) withKeys(keys dnssec.Keys) (*Zone, error) {
	if rrtype, line := z.Signed(); line > 0 {
		return nil, fmt.Errorf("zone %s: its file already has signatures (%s): delete them, because the server signs the records", z.Name(), rrtype)
	}
	if err := keys.Check(); err != nil {
		return nil, fmt.Errorf("zone %s: %w", z.Name(), err)
	}
	served := z.overlaid()
	served.signer = newSigner(z.origin, keys)
	served.order = z.sorted()
	var dnskey, cds, cdnskey []string
	for _, key := range keys {
		dnskey = append(dnskey, key.DNSKEY())
	}
	if wanted := keys.Wanted(); wanted != nil {
		cds, cdnskey = []string{wanted.DS(string(z.origin))}, []string{wanted.DNSKEY()}
	} else { // RFC 8078 section 4
		cds, cdnskey = []string{"\x00\x00\x00\x00\x00"}, []string{"\x00\x00\x03\x00\x00"}
	}
	apex := served.editable(z.origin)
	sets := append([]rrset(nil), apex.sets...)
	for rrtype, data := range map[uint16][]string{dns.TypeDNSKEY: dnskey, dns.TypeCDS: cds, dns.TypeCDNSKEY: cdnskey} {
		if apex.set(rrtype) != nil {
			return nil, fmt.Errorf("zone %s: its file has %s records: delete them, because the server adds them itself", z.Name(),
				dns.Type(rrtype))
		}
		sets = append(sets, rrset{rrtype: rrtype, ttl: keyTTL, data: data})
	}
	apex.sets = sets
	if apex.owner == "" {
		return nil, errors.New("a zone without records can't be signed")
	}
	served.sortOverlay()
	return served, nil
}

// types appends the types that a name has, for an NSEC record. It leaves out missing, which an
// edge name may have for other clients.
func (at *node) types(z *Zone, missing uint16, types []uint16) []uint16 {
	types = append(types, dns.TypeRRSIG, dns.TypeNSEC)
	cut := at != z.apex && at.name != z.origin && at.set(dns.TypeNS) != nil
	for i := range at.sets {
		if rrtype := at.sets[i].rrtype; !cut || rrtype == dns.TypeNS || rrtype == dns.TypeDS {
			types = append(types, rrtype)
		}
	}
	if at.edge != nil && !cut {
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS} {
			if at.edge.families[rrtype] != nil && rrtype != missing && at.set(rrtype) == nil {
				types = append(types, rrtype)
			}
		}
	}
	return types
}

// canonicalData returns rdata with its names in lower case, for the types of RFC 4034 section 6.2
// (3) as RFC 6840 section 5.1 changes it.
func canonicalData(rrtype uint16, data string) string {
	from, to := 0, len(data)
	switch rrtype {
	case dns.TypeNS, dns.TypeMD, dns.TypeMF, dns.TypeCNAME, dns.TypeMB, dns.TypeMG, dns.TypeMR, dns.TypePTR,
		dns.TypeDNAME, dns.TypeMINFO, dns.TypeRP:
	case dns.TypeSOA:
		to -= 20
	case dns.TypeMX, dns.TypeAFSDB, dns.TypeRT, dns.TypeKX, dns.TypePX:
		from = 2
	case dns.TypeSRV:
		from = 6
	case dns.TypeNAPTR:
		from = 4
		for range 3 {
			if from < to {
				from += 1 + int(data[from])
			}
		}
	case dns.TypeSIG:
		from = 18
		if from < to {
			to = from + nameLen(data[from:])
		}
	default:
		return data
	}
	if from >= to || to > len(data) {
		return data
	}
	for i := from; i < to; i++ {
		if c := data[i]; 'A' <= c && c <= 'Z' {
			same := bytes.Clone([]byte(data))
			toLower(same[from:to])
			return string(same)
		}
	}
	return data
}
