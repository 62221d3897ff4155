package geodns

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/phuslu/iploc"
)

func TestNetworks(t *testing.T) {
	var places []Place
	table := make(map[netip.Prefix]Place)
	add := func(prefix string) {
		place := Place{float64(len(places)), 0}
		places = append(places, place)
		table[netip.MustParsePrefix(prefix)] = place
	}
	add("10.0.0.0/8")
	add("10.20.0.0/16")
	add("10.20.30.0/24")
	add("10.20.30.40/32")
	add("2001:db8::/32")
	n, err := newNetworks(table)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		addr  string
		place int
		apart int
	}{
		{"10.0.0.1", 0, 12},
		{"10.128.0.1", 0, 9},
		{"10.21.0.1", 0, 16},
		{"10.20.0.1", 1, 20},
		{"10.20.31.1", 1, 24},
		{"10.20.30.200", 2, 25},
		{"10.20.30.41", 2, 32},
		{"10.20.30.40", 3, 32},
		{"11.0.0.1", -1, 8},
		{"192.0.2.1", -1, 1},
		{"2001:db8::1", 4, 32},
		{"2001:db9::1", -1, 32},
		{"fe80::1", -1, 1},
	} {
		place, apart := n.find(netip.MustParseAddr(test.addr))
		if apart != test.apart || (place == nil) != (test.place < 0) || place != nil && *place != places[test.place] {
			t.Errorf("%s is %v, apart from others at %d, want %d, %d", test.addr, place, apart, test.place, test.apart)
		}
	}
	everywhere, err := newNetworks(map[netip.Prefix]Place{netip.MustParsePrefix("0.0.0.0/0"): helsinki})
	if err != nil {
		t.Fatal(err)
	}
	if place, apart := everywhere.find(netip.MustParseAddr("192.0.2.1")); place == nil || apart != 0 {
		t.Errorf("of 0.0.0.0/0: %v, %d", place, apart)
	}
	// The prefix is just long enough to exclude ::ffff:0:0/96.
	if place, apart := everywhere.find(netip.MustParseAddr("::1")); place != nil || apart != 81 {
		t.Errorf("of 0.0.0.0/0, IPv6: %v, %d", place, apart)
	}
}

func TestNetworksRefused(t *testing.T) {
	for _, prefix := range []netip.Prefix{{}, netip.MustParsePrefix("10.0.0.1/8"),
		netip.MustParsePrefix("::ffff:10.0.0.0/104")} {
		if _, err := newNetworks(map[netip.Prefix]Place{prefix: helsinki}); err == nil {
			t.Errorf("%v is taken", prefix)
		}
	}
	for _, place := range []Place{{91, 0}, {0, -181}, {math.NaN(), 0}, {0, math.Inf(1)}} {
		if _, err := newNetworks(map[netip.Prefix]Place{netip.MustParsePrefix("10.0.0.0/8"): place}); err == nil {
			t.Errorf("%v is taken", place)
		}
	}
}

func TestFindCountry(t *testing.T) {
	table := centroids()
	for network, want := range map[string]string{
		"193.166.0.0": "FI", "130.233.0.0": "FI", "128.112.0.0": "US", "8.8.8.0": "US", "2001:708::": "FI",
		"2001:200::": "JP",
	} {
		at := table.find(netip.MustParseAddr(network), new(Place))
		if at.country != want || at.place == nil || at.source != "countries" {
			t.Errorf("%s is %+v, want %s", network, at, want)
		}
	}
	for _, network := range []string{"10.0.0.0", "127.0.0.1", "::1"} {
		if at := table.find(netip.MustParseAddr(network), new(Place)); at.place != nil || at.source != "" {
			t.Errorf("%s is %+v, want nowhere", network, at)
		}
	}
}

// TestFindCountryNetwork checks with the public function that the network found is all in one
// country. Every longer prefix must be too.
func TestFindCountryNetwork(t *testing.T) {
	table := centroids()
	for _, a := range []string{"8.8.8.8", "193.166.3.2", "130.233.1.1", "1.0.0.1", "203.0.113.7", "0.0.0.0",
		"255.255.255.255", "2001:708::1", "::"} {
		addr := netip.MustParseAddr(a)
		at := table.find(addr, new(Place))
		country := iploc.IPCountry(addr)
		differs := func(bits int) bool {
			first, last := ends(addr, bits)
			return iploc.IPCountry(first) != country || iploc.IPCountry(last) != country
		}
		if differs(at.bits) {
			t.Errorf("%s/%d is not all in %s", a, at.bits, country)
		}
		for bits := at.bits; bits < addr.BitLen(); bits++ {
			if differs(bits) {
				t.Errorf("%s/%d is not all in %s", a, bits, country)
			}
		}
	}
}

// TestCentroids checks that every country in the embedded table has a place.
func TestCentroids(t *testing.T) {
	seen := make(map[string]bool)
	for addr := uint32(0); addr < 0xffff_0000; addr += 0x1_0000 / 4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], addr)
		seen[iploc.IPCountry(netip.AddrFrom4(b))] = true
	}
	for country := range seen {
		place, ok := centroids()[country]
		if !ok && country != "ZZ" {
			t.Errorf("%s has no place", country)
		}
		if err := place.check(); err != nil {
			t.Errorf("%s: %v", country, err)
		}
	}
	if len(seen) < 150 {
		t.Errorf("only %d countries", len(seen))
	}
}

func TestDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "places.mmdb")
	writeMMDB(t, path, map[string]any{
		"203.0.113.0/24": mmdbMap{"location", mmdbMap{"latitude", 60.17, "longitude", 24.94}, "country",
			mmdbMap{"iso_code", "FI"}},
		"198.51.100.0/25": mmdbMap{"country_code", "US", "latitude", "40.71", "longitude", "-74.01"},
		"192.0.2.0/24":    mmdbMap{"country", mmdbMap{"iso_code", "JP"}},
		"100.64.0.0/10":   mmdbMap{"country_code", "JP"},
		"101.0.0.0/8":     mmdbMap{"country", "FI"},
		"102.0.0.0/8":     mmdbMap{"latitude", uint32(10), "longitude", uint32(20)},
		"103.0.0.0/8":     mmdbMap{"asn", "AS1"},
		"104.0.0.0/8":     mmdbMap{"latitude", "north", "longitude", 500.0, "country_code", "FI"},
	})
	db, err := openDatabase(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	japan := centroids()["JP"]
	finland := centroids()["FI"]
	for _, test := range []struct {
		addr  string
		place *Place
		bits  int
	}{
		{"203.0.113.9", &helsinki, 24},
		{"198.51.100.9", &newYork, 25},
		{"192.0.2.1", &japan, 24},
		{"100.100.0.1", &japan, 10},
		{"101.1.1.1", &finland, 8},
		{"102.1.1.1", &Place{10, 20}, 8},
		{"103.1.1.1", nil, 8},
		{"104.1.1.1", &finland, 8},
		{"198.51.100.200", nil, 25},
		{"2001:db8::1", nil, 0},
	} {
		at := db.find(netip.MustParseAddr(test.addr), centroids(), new(Place))
		if at.bits != test.bits || (at.place == nil) != (test.place == nil) || at.place != nil &&
			*at.place != *test.place {
			t.Errorf("%s is %v, %+v, want %v, /%d", test.addr, at.place, at, test.place, test.bits)
		}
	}

	// The operator's database takes precedence over the countries, except where it has no place.
	known, err := newNetworks(map[netip.Prefix]Place{netip.MustParsePrefix("203.0.113.128/25"): tokyo})
	if err != nil {
		t.Fatal(err)
	}
	l := &locator{known: known, db: db, countries: centroids()}
	for addr, want := range map[string]location{
		"203.0.113.9":   {place: &helsinki, bits: 25, source: "geoip"},
		"203.0.113.200": {place: &tokyo, bits: 25, source: "locate"},
	} {
		if at := l.find(netip.MustParseAddr(addr), new(Place)); *at.place != *want.place || at.bits != want.bits ||
			at.source != want.source {
			t.Errorf("%s is %+v, want %+v", addr, at, want)
		}
	}
	if at := l.find(netip.MustParseAddr("193.166.3.2"), new(Place)); at.country != "FI" || at.source != "countries" {
		t.Errorf("193.166.3.2 is %+v", at)
	}

	again, err := openDatabase(path, db)
	if err != nil || again != db {
		t.Errorf("an unchanged file is read again: %v", err)
	}
	if err := os.WriteFile(path, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDatabase(path, db); err == nil {
		t.Error("a broken file is taken")
	}
	if _, err := openDatabase(path+"x", nil); err == nil {
		t.Error("a missing file is taken")
	}
}

// A database without places, such as GeoLite2-ASN, is rejected, and the error names its type.
func TestDatabaseWithoutPlacesIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "GeoLite2-ASN.mmdb")
	writeMMDB(t, path, map[string]any{
		"203.0.113.0/24":  mmdbMap{"asn", uint32(64496), "organization", "Example"},
		"198.51.100.0/24": mmdbMap{"asn", uint32(64497), "organization", "Example"},
	})
	cfg := testConfig(t)
	cfg.GeoIP = path
	err := new(Server).Reload(cfg)
	if err == nil || !strings.Contains(err.Error(),
		path+": it is a GeoLite2-ASN, whose networks have neither a country nor a location: want a database of countries or cities, such as GeoLite2-Country") {
		t.Errorf("error is %v", err)
	}
}

// mmdbMap holds keys and values alternately.
type mmdbMap []any

// writeMMDB writes a MaxMind DB (format version 2.0) of IPv4 networks, with 32-bit records.
func writeMMDB(t *testing.T, path string, networks map[string]any) {
	t.Helper()
	const data = 1 << 24 // marks offsets into the data section until the size of the tree is known
	nodes := [][2]uint32{{}}
	var section bytes.Buffer
	for network, record := range networks {
		prefix := netip.MustParsePrefix(network)
		bits, at := prefix.Addr().AsSlice(), uint32(0)
		for i := range prefix.Bits() - 1 {
			next := nodes[at][bit(bits, i)]
			if next == 0 {
				next = uint32(len(nodes))
				nodes = append(nodes, [2]uint32{})
				nodes[at][bit(bits, i)] = next
			}
			at = next
		}
		nodes[at][bit(bits, prefix.Bits()-1)] = data + uint32(section.Len())
		section.Write(mmdbValue(t, record))
	}
	var file []byte
	for _, node := range nodes {
		for _, record := range node {
			switch {
			case record == 0:
				record = uint32(len(nodes))
			case record >= data:
				record = record - data + uint32(len(nodes)) + 16
			}
			file = binary.BigEndian.AppendUint32(file, record)
		}
	}
	file = append(file, make([]byte, 16)...)
	file = append(file, section.Bytes()...)
	file = append(file, "\xab\xcd\xefMaxMind.com"...)
	file = append(file, mmdbValue(t, mmdbMap{
		"node_count", uint32(len(nodes)), "record_size", uint16(32), "ip_version", uint16(4), "database_type",
		cmp.Or(strings.TrimSuffix(filepath.Base(path), ".mmdb"), "test"),
		"languages", []any{}, "binary_format_major_version", uint16(2), "binary_format_minor_version", uint16(0),
		"build_epoch", uint64(1), "description", mmdbMap{},
	})...)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mmdbValue(t *testing.T, v any) []byte {
	control := func(kind, size int) []byte {
		if kind > 7 {
			return []byte{byte(size), byte(kind - 7)}
		}
		return []byte{byte(kind<<5 | size)}
	}
	number := func(kind, size int, n uint64) []byte {
		return append(control(kind, size), binary.BigEndian.AppendUint64(nil, n)[8-size:]...)
	}
	switch v := v.(type) {
	case string:
		if len(v) >= 29 {
			t.Fatal("string too long for this encoder")
		}
		return append(control(2, len(v)), v...)
	case float64:
		return number(3, 8, math.Float64bits(v))
	case uint16:
		return number(5, 2, uint64(v))
	case uint32:
		return number(6, 4, uint64(v))
	case uint64:
		return number(9, 8, v)
	case []any:
		return control(11, len(v))
	case mmdbMap:
		out := control(7, len(v)/2)
		for _, item := range v {
			out = slices.Concat(out, mmdbValue(t, item))
		}
		return out
	}
	t.Fatalf("no encoding for %T", v)
	return nil
}
