package geodns

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

// TestWellKnownNetworks checks the embedded table against networks whose country is known from
// elsewhere. It checks both ends of each network and addresses between.
func TestWellKnownNetworks(t *testing.T) {
	const near = 1500 // km from the country's entry in the table of countries
	wellKnown, err := os.ReadFile("testdata/networks.txt")
	if err != nil {
		t.Fatal(err)
	}
	l := &locator{known: new(networks), countries: centroids()}
	countries := make(map[string]bool)
	total, six := 0, 0
	for line := range strings.Lines(string(wellKnown)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 {
			t.Fatalf("%q: want prefix, country and holder", line)
		}
		prefix, err := netip.ParsePrefix(f[0])
		if err != nil || prefix != prefix.Masked() {
			t.Fatalf("%q: not a network: %v", line, err)
		}
		center, ok := centroids()[f[1]]
		if !ok {
			t.Fatalf("%q: no such country", line)
		}
		for _, addr := range spread(prefix) {
			at := l.find(addr, new(Place))
			if at.country != f[1] || at.source != "countries" || at.place == nil || at.place.Distance(center) > near {
				t.Errorf("%s: %v is %+v", strings.TrimSpace(line), addr, at)
				break
			}
			if at.bits > addr.BitLen() || at.bits == 0 {
				t.Errorf("%s: scope %d", strings.TrimSpace(line), at.bits)
			}
		}
		countries[f[1]] = true
		total++
		if prefix.Addr().Is6() {
			six++
		}
	}
	if total < 400 || len(countries) < 100 || six < 40 {
		t.Errorf("%d networks, %d of them IPv6, in %d countries", total, six, len(countries))
	}
}

// spread returns the first and the last address of a network and 16 addresses between.
func spread(prefix netip.Prefix) []netip.Addr {
	first, last := ends(prefix.Addr(), prefix.Bits())
	all := []netip.Addr{first, last}
	for i := range 16 {
		b := first.AsSlice()
		for j := range 4 { // the next four bits take all values
			if at := prefix.Bits() + j; at < len(b)*8 {
				b[at/8] |= byte(i>>j&1) << (7 - at%8)
			}
		}
		addr, _ := netip.AddrFromSlice(b)
		all = append(all, addr)
	}
	return all
}

// TestCentroidsWherePeopleLive checks the centres of countries whose area and population have
// different centres. Most people of each country live around the given city.
func TestCentroidsWherePeopleLive(t *testing.T) {
	for _, test := range []struct {
		country string
		city    string
		place   Place
		within  float64 // km
	}{
		{"US", "Cincinnati", Place{39.10, -84.51}, 700},
		{"CA", "Toronto", Place{43.65, -79.38}, 500},
		{"MX", "Mexico City", Place{19.43, -99.13}, 400},
		{"BR", "Belo Horizonte", Place{-19.92, -43.94}, 600},
		{"AR", "Buenos Aires", Place{-34.60, -58.38}, 400},
		{"CL", "Santiago", Place{-33.45, -70.67}, 400},
		{"PE", "Lima", Place{-12.05, -77.04}, 400},
		{"RU", "Moscow", Place{55.76, 37.62}, 1000},
		{"KZ", "Almaty", Place{43.24, 76.89}, 1100},
		{"SE", "Stockholm", Place{59.33, 18.07}, 350},
		{"NO", "Oslo", Place{59.91, 10.75}, 300},
		{"FI", "Helsinki", Place{60.17, 24.94}, 250},
		{"GB", "Birmingham", Place{52.48, -1.90}, 200},
		{"FR", "Paris", Place{48.86, 2.35}, 350},
		{"DE", "Frankfurt", Place{50.11, 8.68}, 250},
		{"EG", "Cairo", Place{30.04, 31.24}, 250},
		{"DZ", "Algiers", Place{36.75, 3.06}, 250},
		{"LY", "Tripoli", Place{32.89, 13.19}, 500},
		{"NG", "Abuja", Place{9.07, 7.40}, 500},
		{"CD", "Kananga", Place{-5.90, 22.42}, 900},
		{"ZA", "Johannesburg", Place{-26.20, 28.05}, 500},
		{"SA", "Riyadh", Place{24.71, 46.68}, 600},
		{"IR", "Tehran", Place{35.69, 51.39}, 400},
		{"IN", "Nagpur", Place{21.15, 79.09}, 600},
		{"CN", "Wuhan", Place{30.59, 114.31}, 500},
		{"MN", "Ulaanbaatar", Place{47.92, 106.92}, 300},
		{"ID", "Jakarta", Place{-6.21, 106.85}, 500},
		{"JP", "Nagoya", Place{35.18, 136.91}, 350},
		{"AU", "Canberra", Place{-35.28, 149.13}, 400},
		{"NZ", "Wellington", Place{-41.29, 174.78}, 450},
		{"GL", "Nuuk", Place{64.18, -51.72}, 400},
	} {
		center, ok := centroids()[test.country]
		if d := center.Distance(test.place); !ok || d > test.within {
			t.Errorf("%s is at %v, %.0f km from %s", test.country, center, d, test.city)
		}
	}
	us := centroids()["US"]
	if kansas := (Place{39.83, -98.58}); us.Distance(kansas) < 800 {
		t.Errorf("the US is at %v, in the middle of its area", us)
	}
}
