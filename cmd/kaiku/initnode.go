package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// firstNode is a machine as init was told of it.
type firstNode struct {
	Name      string
	Addresses []netip.Addr
	Place     config.Location
	Where     string // a description of the location; "" if coordinates were given
	Guessed   bool   // the location is guessed from the address
	Roles     string
}

// addNode parses and adds a machine, NAME=IP[,IP]@PLACE. Another node with the same name or address
// is an error.
func (f *firstFiles) addNode(text string) error {
	n, err := parseFirstNode(text)
	if err != nil {
		return err
	}
	for _, other := range f.Nodes {
		if other.Name == n.Name {
			return fmt.Errorf("the name %s is already taken: give this node another name", n.Name)
		}
		for _, a := range n.Addresses {
			if slices.Contains(other.Addresses, a) {
				return fmt.Errorf("%s is already the address of node %s", a, other.Name)
			}
		}
	}
	f.Nodes = append(f.Nodes, n)
	return nil
}

func parseFirstNode(text string) (firstNode, error) {
	const form = "want NAME=IP[,IP]@PLACE, such as hel1=203.0.113.10@60.17,24.94 or hel1=203.0.113.10@Helsinki"
	name, rest, ok := strings.Cut(text, "=")
	n := firstNode{Name: strings.TrimSpace(name)}
	if !ok {
		return n, fmt.Errorf("node %q: %s", text, form)
	}
	if !config.IsNodeName(n.Name) {
		return n, fmt.Errorf("%q is not a node name: want letters a-z, digits and -; %s", n.Name, form)
	}
	addresses, place, given := strings.Cut(rest, "@")
	for a := range strings.SplitSeq(addresses, ",") {
		addr, err := netip.ParseAddr(strings.Trim(strings.TrimSpace(a), "[]"))
		if err != nil || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
			return n, fmt.Errorf("node %s: %q is not an IP address; %s", n.Name, a, form)
		}
		if slices.Contains(n.Addresses, addr.Unmap()) {
			return n, fmt.Errorf("node %s has the address %s twice", n.Name, addr)
		}
		n.Addresses = append(n.Addresses, addr.Unmap())
	}
	if given {
		return n, n.parsePlace(strings.TrimSpace(place))
	}
	for _, a := range n.Addresses {
		if country, people, ok := geodns.Country(a); ok {
			n.Guessed, n.Place, n.Where = true, config.Location{people.Lat, people.Lon}, "the centre of population of "+
				country+
				", guessed from its address"
			return n, nil
		}
	}
	return n, fmt.Errorf("node %s: give its place, because the country of its address is unknown: %s", n.Name, form)
}

// parsePlace sets the location from coordinates or from the name of a city.
func (n *firstNode) parsePlace(text string) error {
	lat, lon, both := strings.Cut(text, ",")
	var err1, err2 error
	n.Place[0], err1 = strconv.ParseFloat(strings.TrimSpace(lat), 64)
	n.Place[1], err2 = strconv.ParseFloat(strings.TrimSpace(lon), 64)
	if both && err1 == nil && err2 == nil {
		if l := n.Place; !(l[0] >= -90 && l[0] <= 90 && l[1] >= -180 && l[1] <= 180) {
			return fmt.Errorf("node %s: %s is not on the Earth: latitude is -90 to 90, longitude -180 to 180", n.Name,
				text)
		}
		return nil
	}
	place, known, near := city(text)
	switch {
	case known != "":
		n.Place, n.Where = place, known
		return nil
	case near != "":
		return fmt.Errorf("node %s: unknown city %q; did you mean %s? You may also give LATITUDE,LONGITUDE", n.Name,
			text, near)
	}
	return fmt.Errorf("node %s: %q is neither LATITUDE,LONGITUDE nor a known city", n.Name, text)
}
