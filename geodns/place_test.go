package geodns

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b Place
		km   float64 // as geographers have it, on a sphere
	}{
		{helsinki, helsinki, 0},
		{helsinki, newYork, 6620},
		{newYork, tokyo, 10850},
		{Place{0, 0}, Place{0, 180}, math.Pi * earthRadius},
		{Place{90, 0}, Place{-90, 77}, math.Pi * earthRadius},
		{Place{-17, 179.5}, Place{-17, -179.5}, 106}, // across the date line
	} {
		if got := test.a.distance(test.b); math.Abs(got-test.km) > 10 {
			t.Errorf("%v to %v is %.0f km, want %.0f", test.a, test.b, got, test.km)
		}
		if there, back := test.a.distance(test.b), test.b.distance(test.a); there != back {
			t.Errorf("%v to %v is %v there and %v back", test.a, test.b, there, back)
		}
	}
}

// chord is a measure of distance found another way: straight through the Earth.
func chord(a, b Place) float64 {
	vector := func(p Place) [3]float64 {
		lat, lon := p.Lat*math.Pi/180, p.Lon*math.Pi/180
		return [3]float64{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
	}
	u, v := vector(a), vector(b)
	return math.Sqrt((u[0]-v[0])*(u[0]-v[0]) + (u[1]-v[1])*(u[1]-v[1]) + (u[2]-v[2])*(u[2]-v[2]))
}

func TestChooseNearest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	place := func() Place { return Place{random.Float64()*180 - 90, random.Float64()*360 - 180} }
	for range 10_000 {
		nodes := make([]Place, 1+random.IntN(20))
		up := make([]bool, len(nodes))
		for i := range nodes {
			nodes[i], up[i] = place(), random.IntN(4) > 0
		}
		at := place()
		order, allDown := choose(&at, nodes, func(i int) bool { return up[i] })
		if allDown == slices.Contains(up, true) {
			t.Fatalf("all down is %v of %v", allDown, up)
		}
		var want []int
		for i := range nodes {
			if up[i] || allDown {
				want = append(want, i)
			}
		}
		slices.SortFunc(want, func(a, b int) int {
			if chord(at, nodes[a]) < chord(at, nodes[b]) {
				return -1
			}
			return 1
		})
		if len(order) != len(want) {
			t.Fatalf("%d nodes, want %d", len(order), len(want))
		}
		for i, r := range order {
			if r.index != want[i] {
				t.Fatalf("from %v to %v the order is %v, want %v", at, nodes, order, want)
			}
		}
	}
}

func TestChooseWithoutPlace(t *testing.T) {
	nodes := []Place{tokyo, helsinki, newYork}
	order, allDown := choose(nil, nodes, func(i int) bool { return i != 1 })
	if allDown || len(order) != 2 || order[0].index != 0 || order[1].index != 2 {
		t.Errorf("order is %v", order)
	}
	// Equally far: as configured.
	order, _ = choose(&helsinki, []Place{tokyo, newYork, tokyo, newYork}, func(int) bool { return true })
	if order[0].index != 1 || order[1].index != 3 || order[2].index != 0 || order[3].index != 2 {
		t.Errorf("order is %v", order)
	}
	if order, allDown = choose(&helsinki, nil, nil); len(order) != 0 || allDown {
		t.Errorf("of no nodes: %v, %v", order, allDown)
	}
}
