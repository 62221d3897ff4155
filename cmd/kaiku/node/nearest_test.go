package node

import (
	"slices"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// A node sorts the control nodes by distance. Itself comes first.
func TestNearestControl(t *testing.T) {
	at := func(name string, lat, lon float64) config.Node {
		return config.Node{Name: name, Location: &config.Location{lat, lon}}
	}
	f := &config.Fleet{Nodes: []config.Node{at("hel", 60.17, 24.94), at("nyc", 40.71, -74.01), at("sin", 1.35, 103.82),
		{Name: "nowhere"}}}
	addrs := map[string]string{"hel": "h:1", "nyc": "n:1", "sin": "s:1", "nowhere": "x:1"}
	for i, want := range [][]string{{"h:1", "n:1", "s:1", "x:1"}, {"n:1", "h:1", "s:1", "x:1"},
		{"s:1", "h:1", "n:1", "x:1"}, {"h:1", "x:1", "n:1", "s:1"}} {
		if got := nearestFirst(f, &f.Nodes[i], addrs); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", f.Nodes[i].Name, got, want)
		}
	}
}
