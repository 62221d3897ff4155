package main

import "testing"

func TestTheExampleInDocsLoads(t *testing.T) {
	if _, _, err := loadFleet("../../docs/fleet.yaml"); err != nil {
		t.Fatal(err)
	}
}
