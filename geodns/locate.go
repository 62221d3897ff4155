package geodns

import (
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"unsafe"

	"github.com/oschwald/maxminddb-golang/v2"
	"github.com/phuslu/iploc"
)

// locator finds the place of an address. It asks the operator's table first, then the operator's
// database, then the embedded table of countries. It is immutable.
type locator struct {
	known     *networks
	db        *database // nil if there is none
	countries countries
}

// location is the place of an address.
type location struct {
	place *Place // nil if no source knows
	// Every address that shares the first bits has the same place from the same source.
	bits    int
	source  string // "locate", "geoip" or "countries"; "" if no source knows
	country string // ISO 3166-1 alpha-2, if the source only knew the country
}

// find returns the location of addr. It may store the place in buf. The caller may reuse buf once
// it no longer uses the location.
func (l *locator) find(addr netip.Addr, buf *Place) location {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return location{} // for example a subnet of family 0
	}
	place, apart := l.known.find(addr)
	if place != nil {
		return location{place: place, bits: apart, source: "locate"}
	}
	found := location{bits: apart}
	if l.db != nil {
		at := l.db.find(addr, l.countries, buf)
		at.bits = max(at.bits, found.bits)
		if at.place != nil {
			return at
		}
		found = at
	}
	at := l.countries.find(addr, buf)
	at.bits = max(at.bits, found.bits)
	return at
}

// networks is a binary trie of prefixes with one root per family.
type networks struct {
	roots [2]*branch // IPv4, IPv6
}

type branch struct {
	child [2]*branch
	place *Place
}

func newNetworks(table map[netip.Prefix]Place) (*networks, error) {
	n := new(networks)
	// Addresses in ::ffff:0:0/96 are looked up as IPv4. This branch keeps every prefix that find
	// reports for an IPv6 address out of that range.
	n.branch(netip.PrefixFrom(netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff}), 96))
	for prefix, place := range table {
		if err := place.check(); err != nil {
			return nil, fmt.Errorf("locate %v: %w", prefix, err)
		}
		if !prefix.IsValid() || prefix != prefix.Masked() {
			return nil, fmt.Errorf("locate %v: not a network; did you mean %v?", prefix, prefix.Masked())
		}
		if prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("locate %v: write an IPv4 network in its own form", prefix)
		}
		n.branch(prefix).place = &place
	}
	return n, nil
}

// branch returns the branch of a prefix. It creates missing branches.
func (n *networks) branch(prefix netip.Prefix) *branch {
	at := n.root(prefix.Addr())
	if *at == nil {
		*at = new(branch)
	}
	here, bits := *at, prefix.Addr().AsSlice()
	for i := range prefix.Bits() {
		next := &here.child[bit(bits, i)]
		if *next == nil {
			*next = new(branch)
		}
		here = *next
	}
	return here
}

func (n *networks) root(addr netip.Addr) **branch {
	if addr.Is4() {
		return &n.roots[0]
	}
	return &n.roots[1]
}

// find returns the place of the longest prefix that contains addr, or nil. apart is the length of
// the shortest prefix of addr that lies in the same networks of the table as addr and overlaps no
// others.
func (n *networks) find(addr netip.Addr) (place *Place, apart int) {
	here, bits := *n.root(addr), addr.AsSlice()
	for here != nil {
		if here.place != nil {
			place = here.place
		}
		if here.child == [2]*branch{} {
			return place, apart
		}
		// A longer prefix of the table starts here, on addr's side or on the other side.
		here = here.child[bit(bits, apart)]
		apart++
	}
	return place, apart
}

func bit(b []byte, i int) int { return int(b[i/8]>>(7-i%8)) & 1 }

// find looks addr up in the embedded table, whose entries are ranges of addresses. The iploc
// package returns only the country, but always as a substring of one long string that has one
// country per range. Two addresses are therefore in the same range if and only if their countries
// are at the same place in memory. The ranges are sorted, so a prefix lies in one range if its
// first and its last address do.
func (c countries) find(addr netip.Addr, buf *Place) location {
	country := iploc.IPCountry(addr)
	if country == "" {
		return location{bits: addr.BitLen()} // only with IPLOC_IPV4ONLY in the environment
	}
	entry := unsafe.StringData(country)
	shortest, longest := 0, addr.BitLen()
	for shortest < longest {
		bits := (shortest + longest) / 2
		first, last := ends(addr, bits)
		if unsafe.StringData(iploc.IPCountry(first)) == entry && unsafe.StringData(iploc.IPCountry(last)) == entry {
			longest = bits
		} else {
			shortest = bits + 1
		}
	}
	at := location{bits: longest}
	if place, ok := c[country]; ok {
		*buf = place
		at.place, at.country, at.source = buf, country, "countries"
	}
	return at
}

// ends returns the first and the last address that share the leading bits of addr.
func ends(addr netip.Addr, bits int) (first, last netip.Addr) {
	lo, hi := addr.AsSlice(), addr.AsSlice()
	for i := bits; i < addr.BitLen(); i++ {
		mask := byte(0x80 >> (i % 8))
		lo[i/8] &^= mask
		hi[i/8] |= mask
	}
	first, _ = netip.AddrFromSlice(lo)
	last, _ = netip.AddrFromSlice(hi)
	return first, last
}

// database is the operator's mmdb file. It is read into memory, not mapped. If a mapped file is
// overwritten in place, as scp does, the process dies of SIGBUS.
type database struct {
	reader *maxminddb.Reader
	path   string
	info   os.FileInfo
}

// openDatabase opens the file at path. It returns open if that is the same unchanged file.
func openDatabase(path string, open *database) (*database, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("geoip database: %w", err)
	}
	if open != nil && open.path == path && os.SameFile(open.info, info) &&
		open.info.Size() == info.Size() && open.info.ModTime().Equal(info.ModTime()) {
		return open, nil
	}
	// Return unused memory to the system first. Otherwise garbage of an earlier database would stay
	// until the heap has doubled.
	debug.FreeOSMemory()
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("geoip database: %w", err)
	}
	reader, err := maxminddb.OpenBytes(b)
	if err != nil {
		return nil, fmt.Errorf("geoip database %s: %w", path, err)
	}
	db := &database{reader: reader, path: path, info: info}
	if !db.hasPlaces() {
		return nil, fmt.Errorf("geoip database %s: it is a %s, whose networks have neither a country nor a location: want a database of countries or cities, such as GeoLite2-Country or GeoLite2-City",
			path, reader.Metadata.DatabaseType)
	}
	return db, nil
}

// CheckGeoIP returns an error if the file at path is not a usable geoip database.
func CheckGeoIP(path string) error {
	_, err := openDatabase(path, nil)
	return err
}

// hasPlaces reports whether the database has places of networks. A database of countries or cities
// has them among its first networks. A database of operators or kinds of connections has none.
func (d *database) hasPlaces() bool {
	seen, c := 0, centroids()
	for result := range d.reader.Networks() {
		if at, _ := placeOf(result, c, new(Place)); at != nil {
			return true
		}
		if seen++; seen == 10_000 {
			break
		}
	}
	return seen == 0 // an empty database is harmless
}

// find returns the location of addr. A record that can't be decoded counts as missing, so that the
// next source is asked.
func (d *database) find(addr netip.Addr, c countries, buf *Place) location {
	result := d.reader.Lookup(addr)
	at := location{source: "geoip"}
	if prefix := result.Prefix(); result.Err() == nil && prefix.Addr().Is4() == addr.Is4() {
		// The lookup of an IPv4 address in an IPv6 tree may end above ::/96, if the tree has no
		// IPv4 addresses at all. The prefix is then one of IPv6.
		at.bits = prefix.Bits()
	}
	if !result.Found() {
		return at
	}
	at.place, at.country = placeOf(result, c, buf)
	return at
}

// placeOf returns the place of a record, stored in buf. If the place is the centre of a country, it
// returns the country too. It returns nil if the record has neither a location nor a known country.
func placeOf(result maxminddb.Result, c countries, buf *Place) (at *Place, country string) {
	lat, ok1 := number(result, paths("location", "latitude"), paths("latitude"))
	lon, ok2 := number(result, paths("location", "longitude"), paths("longitude"))
	if place := (Place{lat, lon}); ok1 && ok2 && place.check() == nil {
		*buf = place
		return buf, ""
	}
	for _, path := range countryPaths() {
		var code any
		if result.DecodePath(&code, path...) != nil {
			continue
		}
		if code, ok := code.(string); ok {
			if place, ok := c[code]; ok {
				*buf = place
				return buf, code
			}
		}
	}
	return nil, ""
}

func paths(p ...any) []any { return p }

// number returns the number at the first path that leads to one. Some databases store numbers as
// strings.
func number(result maxminddb.Result, of ...[]any) (float64, bool) {
	for _, path := range of {
		var v any
		if result.DecodePath(&v, path...) != nil {
			continue
		}
		if v == nil {
			continue // no such path
		}
		// The value may be a string, or a number of any width.
		if f, err := strconv.ParseFloat(fmt.Sprint(v), 64); err == nil {
			return f, true
		}
	}
	return 0, false
}
