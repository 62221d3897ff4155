package main

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
)

// A first deploy ends with what to do at the registrar. A deploy to known machines does not.
func TestDeployNext(t *testing.T) {
	f, zones, err := config.Load(writeDeployed(t))
	if err != nil {
		t.Fatal(err)
	}
	plan := func(hel1, ns1 string) *deploy.Plan {
		return &deploy.Plan{Nodes: []*deploy.NodePlan{{Node: "hel1", From: hel1}, {Node: "ns1", From: ns1}}}
	}
	const want = `Next, for the domain example.com: query the new name servers before you point the domain to them:
    dig @203.0.113.20 www.example.com +short
At the registrar, set these name servers, with their addresses as glue records. If the domain has DNSSEC now, first remove its DS record:
    ns1.example.com  203.0.113.20
Once the registry has the change, this command prints them:
    dig NS example.com +short
`
	const fleet = `Then check the fleet and its sites:
    kaiku status --config fleet.yaml
    http://www.example.com/
`
	for _, c := range []struct{ hel1, ns1, want string }{
		{"", "", want + fleet}, {"a", "b", ""}, {"", "b", ""}, {"a", "", want},
	} {
		if got := nextSteps(f, plan(c.hel1, c.ns1), zones, "fleet.yaml"); got != c.want {
			t.Errorf("hel1 from %q, ns1 from %q:\n%s\nwant\n%s", c.hel1, c.ns1, got, c.want)
		}
	}
	f.TLS.ACME = &config.ACME{Email: "ops@example.com"}
	f.GeoDNS.Zones = nil
	got := nextSteps(f, plan("", ""), nil, "fleet.yaml")
	if !strings.HasPrefix(got, "Next: point the names of the sites to the edges, by A and AAAA records:\n    www.example.com  203.0.113.10\n") || !strings.Contains(got, "    https://www.example.com/\n") {
		t.Errorf("without name servers:\n%s", got)
	}
}

// A deploy names the listeners of new nodes that this machine can't connect to.
func TestDeployUnreached(t *testing.T) {
	f, _, err := config.Load(writeDeployed(t))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, open, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, dark, err := net.SplitHostPort(freeport.Addr(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range f.Nodes {
		f.Nodes[i].Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	}
	f.Edge.HTTP, f.GeoDNS.Listen = ":"+open, config.AddressList{":" + dark}
	plan := &deploy.Plan{Nodes: []*deploy.NodePlan{{Node: "hel1"}, {Node: "ns1"}}}
	if got := unreachedNames(f, t.Context(), plan); !slices.Equal(got,
		[]string{"ns1  127.0.0.1:" + dark + " (geodns)"}) {
		t.Errorf("%q", got)
	}
	plan.Nodes[1].From = "a"
	if got := unreachedNames(f, t.Context(), plan); got != nil {
		t.Errorf("a node that is not new: %q", got)
	}
}
