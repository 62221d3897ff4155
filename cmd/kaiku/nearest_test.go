package main

import (
	"slices"
	"testing"
)

// A node tells its way to the control plane by distance, itself first.
func TestNearestControl(t *testing.T) {
	at := func(name string, lat, lon float64) Node {
		return Node{Name: name, Location: &Location{lat, lon}}
	}
	f := &Fleet{Nodes: []Node{at("hel", 60.17, 24.94), at("nyc", 40.71, -74.01), at("sin", 1.35, 103.82), {Name: "nowhere"}}}
	addrs := map[string]string{"hel": "h:1", "nyc": "n:1", "sin": "s:1", "nowhere": "x:1"}
	for i, want := range [][]string{{"h:1", "n:1", "s:1", "x:1"}, {"n:1", "h:1", "s:1", "x:1"}, {"s:1", "h:1", "n:1", "x:1"}, {"h:1", "x:1", "n:1", "s:1"}} {
		if got := f.nearest(&f.Nodes[i], addrs); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", f.Nodes[i].Name, got, want)
		}
	}
}
