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

// locator tells where an address is: first from the operator's table, then from the operator's
// database, then from the table of countries that is compiled in. It does not change.
type locator struct {
	known     *networks
	db        *database // nil without one
	countries countries
}

// location is where an address is.
type location struct {
	place   *Place // nil where no source knows
	bits    int    // every address that shares so many leading bits has the same place, from the same source
	source  string // "locate", "geoip", "countries"; "" where no source knows
	country string // ISO 3166-1 alpha-2, where the source is by country
}

// find looks an address up. own is space for the place, which may be used again when the location
// no longer is.
func (l *locator) find(addr netip.Addr, own *Place) location {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return location{} // such as a subnet of family 0, which has source prefix 0 too
	}
	place, apart := l.known.find(addr)
	if place != nil {
		return location{place: place, bits: apart, source: "locate"}
	}
	found := location{bits: apart}
	if l.db != nil {
		at := l.db.find(addr, l.countries, own)
		at.bits = max(at.bits, found.bits)
		if at.place != nil {
			return at
		}
		found = at
	}
	at := l.countries.find(addr, own)
	at.bits = max(at.bits, found.bits)
	return at
}

// networks is a binary trie of prefixes, one root a family.
type networks struct {
	roots [2]*branch // IPv4, IPv6
}

type branch struct {
	child [2]*branch
	place *Place
}

func newNetworks(table map[netip.Prefix]Place) (*networks, error) {
	n := new(networks)
	// IPv4 addresses in IPv6 are looked up as IPv4 ones: no other network may hold them.
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

// branch finds or makes the branch of a network.
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

// find gives the place of the longest prefix that holds addr, if any does, and the length of the
// shortest prefix of addr that lies in the same networks as addr does and overlaps no others.
func (n *networks) find(addr netip.Addr) (place *Place, apart int) {
	here, bits := *n.root(addr), addr.AsSlice()
	for here != nil {
		if here.place != nil {
			place = here.place
		}
		if here.child == [2]*branch{} {
			return place, apart
		}
		// Something more specific begins here, on our side or on the other.
		here = here.child[bit(bits, apart)]
		apart++
	}
	return place, apart
}

func bit(b []byte, i int) int { return int(b[i/8]>>(7-i%8)) & 1 }

// find looks into the embedded table of networks, whose entries are ranges. The package tells the
// country only, but as a substring of its one long string of countries, one for each range: two
// addresses are in the same range if and only if their countries are at the same place in memory.
// The ranges being in order, a prefix lies in one range if its first and last address do.
func (c countries) find(addr netip.Addr, own *Place) location {
	country := iploc.IPCountry(addr)
	if country == "" {
		return location{bits: addr.BitLen()} // only with the environment's IPLOC_IPV4ONLY
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
		*own = place
		at.place, at.country, at.source = own, country, "countries"
	}
	return at
}

// ends gives the first and the last address that share the leading bits of addr.
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

// database is the operator's mmdb. It is read into memory and not mapped: a file that is written
// over in place, as scp does, would end the process with SIGBUS.
type database struct {
	reader *maxminddb.Reader
	path   string
	info   os.FileInfo
}

// openDatabase opens the file, unless it is the one that is open already.
func openDatabase(path string, open *database) (*database, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("geoip database: %w", err)
	}
	if open != nil && open.path == path && os.SameFile(open.info, info) &&
		open.info.Size() == info.Size() && open.info.ModTime().Equal(info.ModTime()) {
		return open, nil
	}
	// What was read before and is no longer used would otherwise stay until the heap has doubled.
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

// CheckGeoIP tells what is wrong with a geoip database.
func CheckGeoIP(path string) error {
	_, err := openDatabase(path, nil)
	return err
}

// hasPlaces reports whether a database tells where networks are. One of countries or cities does so
// in its first networks; one of operators, or of kinds of connections, nowhere.
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
	return seen == 0 // an empty one is as good as none
}

// find looks an address up. A record that cannot be read is as good as none: the next source
// answers.
func (d *database) find(addr netip.Addr, c countries, own *Place) location {
	result := d.reader.Lookup(addr)
	at := location{source: "geoip"}
	if prefix := result.Prefix(); result.Err() == nil && prefix.Addr().Is4() == addr.Is4() {
		at.bits = prefix.Bits() // an IPv4 address may fall out of an IPv6 tree above ::/96: then no IPv4 address is in it
	}
	if !result.Found() {
		return at
	}
	at.place, at.country = placeOf(result, c, own)
	return at
}

// placeOf is the place of a record, in own, and its country where the place is that of one; nil
// where it has neither.
func placeOf(result maxminddb.Result, c countries, own *Place) (at *Place, country string) {
	lat, ok1 := number(result, paths("location", "latitude"), paths("latitude"))
	lon, ok2 := number(result, paths("location", "longitude"), paths("longitude"))
	if place := (Place{lat, lon}); ok1 && ok2 && place.check() == nil {
		*own = place
		return own, ""
	}
	for _, path := range [][]any{
		paths("country", "iso_code"), paths("country_code"), paths("registered_country", "iso_code"), paths("country"),
	} {
		var code any
		if result.DecodePath(&code, path...) != nil {
			continue
		}
		if code, ok := code.(string); ok {
			if place, ok := c[code]; ok {
				*own = place
				return own, code
			}
		}
	}
	return nil, ""
}

func paths(p ...any) []any { return p }

// number reads the first of the paths that leads to a number, or to a string with one, as some
// databases have it.
func number(result maxminddb.Result, of ...[]any) (float64, bool) {
	for _, path := range of {
		var v any
		if result.DecodePath(&v, path...) != nil {
			continue
		}
		if v == nil {
			continue // no such path
		}
		// Whatever width of number it is, or a string.
		if f, err := strconv.ParseFloat(fmt.Sprint(v), 64); err == nil {
			return f, true
		}
	}
	return 0, false
}
