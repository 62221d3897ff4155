package geodns

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kaiku-cdn/kaiku/fleet/rendezvous"
)

// chord measures the distance in another way, straight through the Earth.
func chord(a, b Place) float64 {
	vector := func(p Place) [3]float64 {
		lat, lon := p.Lat*math.Pi/180, p.Lon*math.Pi/180
		return [3]float64{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
	}
	u, v := vector(a), vector(b)
	return math.Sqrt((u[0]-v[0])*(u[0]-v[0]) + (u[1]-v[1])*(u[1]-v[1]) + (u[2]-v[2])*(u[2]-v[2]))
}

// at returns an option at a place, in the group i.
func at(i int, p Place) option {
	return option{place: p, group: i, weight: 1, id: rendezvous.Mix(uint64(i + 1))}
}

func TestChooseNearest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	place := func() Place { return Place{random.Float64()*180 - 90, random.Float64()*360 - 180} }
	for range 10_000 {
		nodes := make([]option, 1+random.IntN(20))
		best := down
		for i := range nodes {
			nodes[i] = at(i, place())
			nodes[i].standing = standing(random.IntN(3))
			best = min(best, nodes[i].standing)
		}
		from := place()
		order, got, byClient := choose(&from, random.Uint64(), nodes, 1+random.IntN(3), nil)
		if got != best || byClient {
			t.Fatalf("standing %v, want %v; by client %v", got, best, byClient)
		}
		var want []int
		for i := range nodes {
			if nodes[i].standing == best {
				want = append(want, i)
			}
		}
		slices.SortFunc(want, func(a, b int) int {
			if chord(from, nodes[a].place) < chord(from, nodes[b].place) {
				return -1
			}
			return 1
		})
		for i, r := range order {
			if len(order) != len(want) || r.index != want[i] {
				t.Fatalf("from %v to %v the order is %v, want %v", from, nodes, order, want)
			}
		}
	}
}

func TestChooseWithoutPlace(t *testing.T) {
	nodes := []option{at(0, tokyo), at(1, helsinki), at(2, newYork)}
	nodes[1].standing = down
	order, _, _ := choose(nil, 7, nodes, 1, nil)
	if len(order) != 2 || order[0].index != 0 || order[1].index != 2 {
		t.Errorf("order is %v", order)
	}
	// Nodes at the same distance in different groups keep the configured order.
	order, _, _ = choose(&helsinki, 7, []option{at(0, tokyo), at(1, newYork), at(2, tokyo), at(3, newYork)}, 1, nil)
	if order[0].index != 1 || order[1].index != 3 || order[2].index != 0 || order[3].index != 2 {
		t.Errorf("order is %v", order)
	}
	if order, _, _ = choose(&helsinki, 7, nil, 1, nil); len(order) != 0 {
		t.Errorf("of no nodes: %v", order)
	}
}

// Nodes of a group share their clients by weight. If a node is lost, only its own clients move.
func TestSharing(t *testing.T) {
	nodes := []option{at(0, helsinki), at(0, Place{60.2, 24.9}), at(0, Place{60.1, 25}), at(3, tokyo)}
	for i := range nodes {
		nodes[i].id = rendezvous.Mix(uint64(100 + i))
	}
	nodes[1].weight = 2
	const clients = 40_000
	pick := func(c int) int {
		order, _, byClient := choose(&helsinki, rendezvous.Mix(uint64(c)), nodes, 1, nil)
		if !byClient && nodes[0].standing == good {
			t.Fatal("the client's network should decide")
		}
		return order[0].index
	}
	before, counts := make([]int, clients), make([]int, 4)
	for c := range before {
		before[c] = pick(c)
		counts[before[c]]++
	}
	for i, want := range []float64{.25, .5, .25, 0} {
		if share := float64(counts[i]) / clients; math.Abs(share-want) > .01 {
			t.Errorf("node %d has %.3f of the clients, want %.2f", i, share, want)
		}
	}
	nodes[0].standing = down
	for c := range before {
		if now := pick(c); before[c] != 0 && now != before[c] || now == 0 || now == 3 {
			t.Fatalf("without node 0 client %d moves from %d to %d", c, before[c], now)
		}
	}
}

// The clients of a node that lacks the address family get another node only if that is about as
// good: not much farther away, and of no worse standing.
func TestChooseWithoutTheFamily(t *testing.T) {
	// South of Helsinki.
	near := func(km float64) Place { return Place{helsinki.Lat - km/111.2, helsinki.Lon} }
	for _, c := range []struct {
		name     string
		at       *Place
		without  []float64 // distances in km from Helsinki
		has      []float64
		down     string // which of without and has are down
		answers  int
		want     string
		standing standing
	}{
		{"much farther", &helsinki, []float64{0}, []float64{1200, 6000}, "", 1, "[]", good},
		{"not much farther", &helsinki, []float64{0}, []float64{900, 6000}, "", 1, "[900]", good},
		{"not much farther, and more than that", &helsinki, []float64{0}, []float64{900, 6000}, "", 2, "[900]", good},
		{"nearer", &helsinki, []float64{500}, []float64{300, 6000}, "", 2, "[300]", good},
		{"the one without is far", &helsinki, []float64{6000}, []float64{300, 5000, 9000}, "", 3, "[300 5000]", good},
		{"two without", &helsinki, []float64{3000, 0}, []float64{1500, 4500}, "", 2, "[]", good},
		{"of no known place", nil, []float64{0}, []float64{1200, 6000}, "", 2, "[1200 6000]", good},
		{"those with it are down", &helsinki, []float64{0}, []float64{10}, "has", 1, "[]", good},
		{"the one without is down", &helsinki, []float64{0}, []float64{6000}, "without", 1, "[6000]", good},
		{"all are down", &helsinki, []float64{0}, []float64{10, 6000}, "has without", 1, "[10]", down},
	} {
		var nodes []option
		var km []float64
		for _, k := range c.without {
			nodes, km = append(nodes, at(len(nodes), near(k))), append(km, k)
			nodes[len(nodes)-1].noAddress = true
		}
		for _, k := range c.has {
			nodes, km = append(nodes, at(len(nodes), near(k))), append(km, k)
		}
		for i := range nodes {
			if nodes[i].noAddress && strings.Contains(c.down, "without") || !nodes[i].noAddress &&
				strings.Contains(c.down, "has") {
				nodes[i].standing = down
			}
		}
		order, best, _ := choose(c.at, 1, nodes, c.answers, nil)
		got := []float64{}
		for _, r := range order[:min(len(order), c.answers)] {
			got = append(got, km[r.index])
		}
		if fmt.Sprint(got) != c.want || best != c.standing {
			t.Errorf("%s: %v, %v", c.name, got, best)
		}
	}
}

// If an answer has all nodes of a group, it doesn't depend on the client's network, and its scope
// need not be narrow.
func TestWholePlace(t *testing.T) {
	nodes := []option{at(0, helsinki), at(0, helsinki), at(2, tokyo)}
	for n, want := range map[int]bool{1: true, 2: false, 3: false} {
		if _, _, byClient := choose(&helsinki, 1, nodes, n, nil); byClient != want {
			t.Errorf("%d answers: by client is %v", n, byClient)
		}
	}
}

// A place that sheds more loses more clients to the next place, the farthest first. It loses none
// to a place that sheds as much.
func TestShed(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	clients := make([]Place, 5000) // between the two nodes, west of Helsinki
	for i := range clients {
		clients[i] = Place{60.17, 24.94 - random.Float64()*45}
	}
	moved := func(shed, other float64) (n int, nearest float64) {
		nodes := []option{at(0, helsinki), at(1, newYork)}
		nodes[0].shed, nodes[1].shed = shed, other
		nearest = math.Inf(1)
		for _, from := range clients {
			order, _, _ := choose(&from, 1, nodes, 1, nil)
			if from.Distance(helsinki) < from.Distance(newYork) && order[0].index == 1 {
				n++
				nearest = min(nearest, from.Distance(helsinki))
			}
		}
		return n, nearest
	}
	last, lastNearest := 0, math.Inf(1)
	for shed := 0.0; shed <= 1; shed += 0.1 {
		n, nearest := moved(shed, 0)
		if n < last || nearest > lastNearest {
			t.Errorf("at %.1f %d clients move, the nearest from %.0f km; a step before %d, %.0f km", shed, n, nearest,
				last, lastNearest)
		}
		last, lastNearest = n, nearest
	}
	if n, _ := moved(0, 0); n != 0 {
		t.Errorf("%d clients move though nothing is shed", n)
	}
	if last == 0 {
		t.Error("nobody moves")
	}
	if n, _ := moved(0.8, 0.8); n != 0 {
		t.Errorf("%d clients move to a place that has as much to do", n)
	}
	// Within a group, the node's share of the clients falls.
	nodes := []option{at(0, helsinki), at(0, helsinki)}
	nodes[1].id, nodes[1].shed = 77, 0.75
	got := 0
	for c := range 40_000 {
		order, _, _ := choose(&helsinki, rendezvous.Mix(uint64(c)), nodes, 1, nil)
		got += order[0].index
	}
	if share := float64(got) / 40_000; math.Abs(share-0.2) > 0.01 {
		t.Errorf("a node that sheds 3/4 has %.3f of the clients of two, want 0.2", share)
	}
}

// If the load follows what is shed with a delay, it settles instead of oscillating.
func TestShedComesToRest(t *testing.T) {
	shed := 0.0
	var sheds []float64
	const delay = 30 // seconds until cached answers have expired
	for second := range 3600 {
		seen := 0.0
		if second >= delay {
			seen = sheds[second-delay]
		}
		load := min(1, 1.3*(1-seen)) // the demand is 1.3 times the capacity
		shed = nextShed(shed, load, time.Second)
		sheds = append(sheds, shed)
	}
	for _, s := range sheds[1800:] {
		if math.Abs(s-shed) > 0.001 {
			t.Fatalf("after half an hour what is shed still moves: %.3f, %.3f", s, shed)
		}
	}
	if load := 1.3 * (1 - shed); load > shedAbove+0.01 || load < shedBelow-0.01 {
		t.Errorf("it rests at a load of %.2f", load)
	}
}

func TestGroups(t *testing.T) {
	nodes := []Node{
		{Place: helsinki}, {Place: Place{60.5, 25}}, {Place: tokyo, Region: "asia"}, {Place: newYork, Region: "us"},
		{Place: Place{39, -77.5}, Region: "us"},
		{Place: Place{35.2, 139.5}}, // near Tokyo, and in no region
	}
	if got := fmt.Sprint(groupsOf(nodes)); got != "[0 0 2 3 3 2]" {
		t.Errorf("groups are %s", got)
	}
}

func TestClientNetwork(t *testing.T) {
	hash := func(s string) uint64 {
		_, h := clientNetwork(netip.MustParseAddr(s))
		return h
	}
	if hash("192.0.2.1") != hash("192.0.2.254") || hash("192.0.2.1") == hash("192.0.3.1") {
		t.Error("IPv4 networks are /24")
	}
	if hash("2001:db8:1::1") != hash("2001:db8:1:ffff::1") || hash("2001:db8:1::") == hash("2001:db8:2::") {
		t.Error("IPv6 networks are /48")
	}
}

// The node of a client stays the same from one version to the next, and is the same on name servers
// of different versions.
func TestNodesOfClientsStay(t *testing.T) {
	const want = "2112211023321321131032311231122102011303101013300113130110121023100112202313021303201202311310121001"
	nodes := make([]option, 4)
	for i := range nodes {
		nodes[i] = option{place: helsinki, weight: float64(1 + i%2), id: xxhash.Sum64String(fmt.Sprint("hel", i))}
	}
	nodes[3].shed = 0.5
	var got strings.Builder
	for i := range 50 {
		client := netip.AddrFrom4([4]byte{203, 0, byte(i), 7})
		if i%2 > 0 {
			client = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i)})
		}
		_, hash := clientNetwork(client)
		order, _, _ := choose(&helsinki, hash, nodes, 1, nil)
		for _, r := range order[:2] {
			fmt.Fprint(&got, r.index)
		}
	}
	if got.String() != want {
		t.Errorf("%s, want %s", got.String(), want)
	}
}
