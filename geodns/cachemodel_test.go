package geodns

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// ecsCache models the cache of a resolver that sends Client Subnets (RFC 7871 section 7.3), for one
// name and type. It answers from the cache whenever the RFC allows it. It even does so for a client
// network wider than a scope, if the network's first address is within that scope.
type ecsCache struct {
	everyone *cached                 // scope 0: for all networks of both families
	hidden   *cached                 // source 0: only for queries with source 0 (section 7.3.1)
	scopes   map[netip.Prefix]cached // by the prefix of the address that is as long as the scope
	// Answers whose scope is longer than their source, for queries from exactly the same network.
	exact map[netip.Prefix]cached
}

// cached is an answer, and the client network and scope that it is for.
type cached struct {
	answer string
	query  netip.Prefix
	scope  int
}

func (c *ecsCache) find(client netip.Prefix) (hit cached, ok bool) {
	if c.everyone != nil {
		return *c.everyone, true
	}
	if client.Bits() == 0 {
		if c.hidden != nil {
			return *c.hidden, true
		}
		return hit, false
	}
	for bits := client.Addr().BitLen(); bits > 0; bits-- {
		network, _ := client.Addr().Prefix(bits)
		if hit, ok = c.scopes[network]; ok {
			return hit, true
		}
	}
	hit, ok = c.exact[client]
	return hit, ok
}

func (c *ecsCache) add(a cached) {
	switch {
	case a.query.Bits() == 0:
		c.hidden = &a
	case a.scope == 0:
		c.everyone = &a
	default:
		network, err := a.query.Addr().Prefix(a.scope)
		if err != nil {
			panic(err) // the caller has checked the scope
		}
		c.scopes[network] = a
		if a.scope > a.query.Bits() {
			c.exact[a.query] = a
		}
	}
}

// overlap returns two answers, the network of one within that of the other (section 7.2.1), if
// there are any.
func (c *ecsCache) overlap() (wide, narrow cached, found bool) {
	if c.everyone != nil && len(c.scopes) > 0 {
		for _, a := range c.scopes {
			return *c.everyone, a, true
		}
	}
	networks := slices.SortedFunc(maps.Keys(c.scopes), netip.Prefix.Compare) // the wider first
	for i := 1; i < len(networks); i++ {
		if networks[i-1].Overlaps(networks[i]) {
			return c.scopes[networks[i-1]], c.scopes[networks[i]], true
		}
	}
	return wide, narrow, false
}

// modelNodes returns nodes in regions of one to three nodes. Two of the nodes have only one address
// family.
func modelNodes() []Node {
	var all []Node
	add := func(name, region string, place Place, weight int, addresses ...string) {
		all = append(all, Node{Name: name, Region: region, Place: place, Weight: weight, Addresses: addrs(addresses...),
			ALPN: []string{"h2"}, Probe: "http://" + net.JoinHostPort(addresses[0], "80") + "/"})
	}
	add("hel1", "eu-north", helsinki, 1, "203.0.113.10", "2001:db8:1::10")
	add("hel2", "eu-north", Place{60.2, 24.7}, 3, "203.0.113.11", "2001:db8:1::11")
	add("sto1", "eu-north", Place{59.3, 18.1}, 1, "203.0.113.12")
	add("fra1", "", Place{50.11, 8.68}, 1, "203.0.113.20", "2001:db8:1::20")
	add("nyc1", "us-east", newYork, 1, "198.51.100.20", "2001:db8:2::20")
	add("nyc2", "us-east", newYork, 1, "198.51.100.21", "2001:db8:2::21")
	add("tyo1", "", tokyo, 1, "192.0.2.40", "2001:db8:3::40")
	add("syd1", "", Place{-33.9, 151.2}, 1, "2001:db8:3::50")
	return all
}

var modelEdges = []EdgeName{
	{Name: "www.example.com"},
	{Name: "two.example.com", Answers: 2},
	{Name: "one.example.com", Nodes: []string{"tyo1"}},
	{Name: "region.example.com", Nodes: []string{"hel1", "hel2", "sto1"}},
	{Name: "region2.example.com", Nodes: []string{"hel1", "hel2", "sto1", "nyc1", "nyc2"}, Answers: 2},
	{Name: "*.wild.example.com", Nodes: []string{"nyc1", "hel1", "tyo1"}},
	{Name: "example.com", Answers: 3},
}

// modelQuestions are the questions of the test. If static is set, all clients must get the same
// answer.
var modelQuestions = []struct {
	question string
	static   bool
}{
	{"www.example.com. A", false},
	{"www.example.com. AAAA", false},
	{"www.example.com. HTTPS", false},
	{"two.example.com. A", false},
	{"two.example.com. AAAA", false},
	{"region.example.com. A", false},
	{"region2.example.com. A", false},
	{"region2.example.com. AAAA", false},
	{"x.wild.example.com. A", false},
	{"example.com. A", false},
	{"toedge.example.com. A", false}, // a CNAME to an edge name
	{"one.example.com. A", true},
	{"mail.example.com. A", true},
	{"alias.example.com. A", true},
	{"x.dev.example.com. A", true},
	{"example.com. MX", true},
	{"host.old.example.com. A", true},
	{"www.example.com. CAA", true},    // the edge name has no such record
	{"mail.example.com. TXT", true},   // no such record
	{"none.example.com. A", true},     // no such name
	{"host.sub.example.com. A", true}, // a delegation
	{"example.org. A", true},          // not one of the server's zones
}

// nested returns a table of networks, many of them nested several levels deep.
func nested(rnd *rand.Rand) map[netip.Prefix]Place {
	table := make(map[netip.Prefix]Place)
	place := func() Place { return Place{rnd.Float64()*150 - 70, rnd.Float64()*360 - 180} }
	for range 25 {
		addr := randomAddr(rnd, rnd.IntN(3) > 0)
		bits := rnd.IntN(addr.BitLen() / 3)
		for range 1 + rnd.IntN(5) {
			if prefix, err := addr.Prefix(bits); err == nil && !prefix.Addr().Is4In6() {
				table[prefix] = place()
			}
			bits = min(addr.BitLen(), bits+1+rnd.IntN(addr.BitLen()/4))
		}
	}
	return table
}

func randomAddr(rnd *rand.Rand, four bool) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], rnd.Uint64())
	binary.BigEndian.PutUint64(b[8:], rnd.Uint64())
	if four {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	b[0], b[1] = 0x20+b[0]&1*0x04, b[1]&3 // in 2000::/8 or 2400::/8, where addresses are in use
	return netip.AddrFrom16(b)
}

// randomClient returns a client network as a resolver sends it: near a network of the table, in a
// well-known network, or anywhere.
func randomClient(rnd *rand.Rand, near []netip.Prefix) netip.Prefix {
	var addr netip.Addr
	switch rnd.IntN(10) {
	case 0:
		addr = randomAddr(rnd, true)
	case 1:
		addr = randomAddr(rnd, false)
	case 2: // an IPv4-mapped address, which no resolver should send
		addr = netip.AddrFrom16(randomAddr(rnd, true).As16())
	default: // some bits around the end of the prefix differ
		in := near[rnd.IntN(len(near))]
		b := in.Addr().AsSlice()
		noise := randomAddr(rnd, in.Addr().Is4()).AsSlice()
		for i := max(0, in.Bits()-rnd.IntN(3)); i < len(b)*8 && i < in.Bits()+rnd.IntN(24); i++ {
			b[i/8] ^= noise[i/8] & (0x80 >> (i % 8))
		}
		addr, _ = netip.AddrFromSlice(b)
	}
	lengths := []int{24, 24, 24, 20, 16, 32, 0, 1 + rnd.IntN(32)}
	if addr.Is6() {
		lengths = []int{56, 56, 48, 64, 32, 128, 0, 1 + rnd.IntN(128)}
	}
	client, _ := addr.Prefix(lengths[rnd.IntN(len(lengths))])
	return client
}

// answerFor asks the server as a resolver does for a client. It returns the parts of the answer
// that must be the same for all clients that share it.
func answerFor(t *testing.T, s *Server, q string, client netip.Prefix, resolver netip.Addr) cached {
	t.Helper()
	family := byte(1)
	if client.Addr().Is6() {
		family = 2
	}
	m := question(q)
	m.SetEdns0(1232, false)
	data := append([]byte{0, family, byte(client.Bits()), 0}, client.Addr().AsSlice()[:(client.Bits()+7)/8]...)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: optionECS, Data: data}}
	resp := mustAnswer(t, s, m, netip.AddrPortFrom(resolver, 53), true)
	var b strings.Builder
	fmt.Fprintln(&b, dns.RcodeToString[resp.Rcode], resp.Authoritative)
	for _, rr := range append(resp.Answer, resp.Ns...) {
		fmt.Fprintln(&b, rr)
	}
	out := cached{answer: b.String(), query: client, scope: -1}
	for _, o := range resp.IsEdns0().Option {
		if o, ok := o.(*dns.EDNS0_SUBNET); ok {
			out.scope = int(o.SourceScope)
			if o.Family != uint16(family) || int(o.SourceNetmask) != client.Bits() {
				t.Fatalf("%s for %v: option %v", q, client, o)
			}
		}
	}
	if out.scope < 0 || out.scope > client.Addr().BitLen() || client.Bits() == 0 && out.scope != 0 {
		t.Fatalf("%s for %v: scope %d", q, client, out.scope)
	}
	return out
}

// TestCacheModel puts the model of a resolver's cache in front of the server and sends it queries
// of many clients. No client may get an answer from the cache that the server would not have given
// it (RFC 7871 sections 7.2.1 and 7.3).
func TestCacheModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7871, 6))
	hits, misses := 0, 0
	for round := range 12 {
		cfg := testConfig(t)
		cfg.Nodes, cfg.Edges, cfg.Locate = modelNodes(), modelEdges, nested(rnd)
		switch round {
		case 0: // only the embedded table
			cfg.Locate = nil
		case 1: // all of one family in a single network, nothing of the other
			cfg.Locate = map[netip.Prefix]Place{netip.MustParsePrefix("0.0.0.0/0"): tokyo}
		case 2:
			cfg.Locate[netip.MustParsePrefix("0.0.0.0/0")] = newYork
			cfg.Locate[netip.MustParsePrefix("2000::/3")] = tokyo
		}
		s := newServer(t, cfg)
		near := slices.SortedFunc(maps.Keys(cfg.Locate), netip.Prefix.Compare)
		for range 20 {
			in, _ := randomAddr(rnd, rnd.IntN(2) > 0).Prefix(16)
			near = append(near, in)
		}
		h, m := modelRound(t, s, rnd, near)
		hits, misses = hits+h, misses+m
	}
	t.Logf("%d answers from the cache, %d from the server", hits, misses)
	if hits < 20_000 || misses < 5_000 {
		t.Errorf("%d answers from the cache and %d from the server show little", hits, misses)
	}
}

// modelRound tests some random states of the nodes, each with empty caches.
func modelRound(t *testing.T, s *Server, rnd *rand.Rand, near []netip.Prefix) (hits, misses int) {
	t.Helper()
	resolvers := addrs("193.166.4.1", "128.112.1.1", "2001:200::53")
	for range 3 {
		for _, state := range s.current.Load().states {
			state.set([]int32{healthy, healthy, healthy, unhealthy}[rnd.IntN(4)])
			if e := state.endpoints[rnd.IntN(len(state.endpoints))]; rnd.IntN(3) == 0 {
				e.phase.Store([]int32{healthy, unhealthy, unroutable}[rnd.IntN(3)])
			}
			state.report.Store(&Report{Draining: rnd.IntN(5) == 0})
			state.shed.Store(math.Float64bits(max(0, rnd.Float64()-0.5)))
		}
		resolver := resolvers[rnd.IntN(len(resolvers))]
		caches := make(map[string]*ecsCache)
		for range 1500 {
			q := modelQuestions[rnd.IntN(len(modelQuestions))]
			client := randomClient(rnd, near)
			direct := answerFor(t, s, q.question, client, resolver)
			if q.static && direct.scope != 0 {
				t.Fatalf("%s for %v: scope %d", q.question, client, direct.scope)
			}
			// If the client's place is unknown, the answer depends on the resolver's place.
			known := s.current.Load().locator.find(client.Addr(), new(Place)).place != nil
			if client.Bits() > 0 && known && rnd.IntN(8) == 0 {
				if elsewhere := answerFor(t, s, q.question, client,
					resolvers[rnd.IntN(len(resolvers))]); elsewhere != direct {
					t.Fatalf("%s for %v: the resolver's own address counts:\n%+v\n%+v", q.question, client, direct,
						elsewhere)
				}
			}
			cache := caches[q.question]
			if cache == nil {
				cache = &ecsCache{scopes: make(map[netip.Prefix]cached), exact: make(map[netip.Prefix]cached)}
				caches[q.question] = cache
			}
			if hit, ok := cache.find(client); ok {
				hits++
				if hit.answer != direct.answer {
					t.Fatalf("%s for %v: the cache says, of %v scope %d,\n%sbut the server, scope %d,\n%s", q.question,
						client,
						hit.query, hit.scope, hit.answer, direct.scope, direct.answer)
				}
				if rnd.IntN(4) > 0 {
					continue
				}
			}
			misses++ // as if another resolver that shares the cache had asked first
			cache.add(direct)
		}
		for q, cache := range caches {
			if wide, narrow, found := cache.overlap(); found {
				t.Fatalf("%s: %v has scope %d, and in it %v has %d", q, wide.query, wide.scope, narrow.query,
					narrow.scope)
			}
		}
	}
	return hits, misses
}
