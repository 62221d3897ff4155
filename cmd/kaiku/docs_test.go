package main

import "testing"

func TestTheExampleInDocsLoads(t *testing.T) {
	f, _, err := loadFleet("../../docs/fleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if p := f.pending(); len(p) > 0 {
		t.Errorf("the example asks for what this version does not do: %v", p)
	}
}
