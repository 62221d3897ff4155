package deploy

import (
	"errors"
	"strings"
	"testing"
)

// withSites gives each node the site www. Its origin is dead if the fleet file contains "wrong
// port" or dead returns true.
func withSites(f *testFleet, dead func(node string) bool) {
	f.onSites = func(node string) []SiteAnswer {
		a := SiteAnswer{Node: node, Site: "www", URL: "https://www.example.com/", Status: 200, Cache: "miss"}
		text := f.nodes[node].read("/etc/kaiku/fleet.yaml")
		if dead(node) || strings.Contains(text, "wrong port") {
			a.Status, a.Error = 502, "its origin http://192.0.2.1:8001 fails: connection refused: check the port"
		}
		answers := []SiteAnswer{a}
		if strings.Contains(text, "new site") {
			a.Site, a.Status, a.Error = "new", 502, "its origin fails"
			answers = append(answers, a)
		}
		return answers
	}
}

func reportText(r *Report) string {
	var b strings.Builder
	_, _ = r.WriteTo(&b)
	return b.String()
}

// If a site fails with the new configuration, the old one is restored before the node gets clients
// again.
func TestWrongOriginIsPutBack(t *testing.T) {
	f := newTestFleet(t, "hel1", "nyc1")
	withSites(f, func(string) bool { return false })
	_, r := f.deploy(t)
	if text := reportText(r); len(r.Sites) != 2 ||
		!strings.Contains(text, "www   hel1  200     miss   https://www.example.com/") {
		t.Errorf("the report is\n%s", text)
	}
	before := f.nodes["hel1"].read("/etc/kaiku/fleet.yaml")
	setConfig(f, "wrong port: 1\n")
	f.events = nil
	_, r, err := f.tryDeploy(t.Context())
	if !errors.Is(err, errStopped) || r.Nodes[0].Outcome != "put back" || r.Nodes[1].Outcome != "untouched" ||
		f.nodes["hel1"].read("/etc/kaiku/fleet.yaml") != before {
		t.Errorf("%v, %+v", err, r.Nodes)
	}
	const want = "node hel1: site www: GET https://www.example.com/ gets 502: its origin http://192.0.2.1:8001 fails: connection refused: check the port\nbefore this deploy it was well"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("the error is %v", err)
	}
	if got := strings.Join(f.events,
		", "); got != "hel1 sites, hel1 drain, hel1 health, hel1 sites, hel1 health, hel1 sites, hel1 undrain" {
		t.Errorf("events: %s", got)
	}
}

// If an origin dies by itself during a change, the deploy stops once, because the cause is not
// known. The next deploy does not stop.
func TestDeadOriginDoesNotKeepFromUpgrades(t *testing.T) {
	f := newTestFleet(t, "hel1", "nyc1")
	dead := false
	withSites(f, func(string) bool { return dead })
	f.deploy(t)
	setConfig(f, "fine: 1\n")
	f.onDrain = func(string, bool) { dead = true }
	_, r, err := f.tryDeploy(t.Context())
	if r.Nodes[0].Outcome != "put back" || err == nil ||
		!strings.Contains(err.Error(), "fails with the node's previous version too") {
		t.Errorf("%v, %+v", err, r.Nodes)
	}
	_, r = f.deploy(t)
	if r.Nodes[0].Outcome != "done" || r.Nodes[1].Outcome != "done" ||
		!strings.Contains(reportText(r), "check the port: as before this deploy\n") {
		t.Errorf("the report is\n%s", reportText(r))
	}
}

// A new site that fails stays installed and is reported as an error.
func TestSitesThatAreNew(t *testing.T) {
	f := newTestFleet(t, "hel1", "nyc1")
	withSites(f, func(node string) bool { return node == "nyc1" })
	_, r, err := f.tryDeploy(t.Context())
	if err == nil || !strings.Contains(err.Error(), "these sites fail: www at nyc1;") ||
		r.Nodes[1].Outcome != "done" {
		t.Errorf("the first deploy: %v, %+v", err, r.Nodes)
	}
	withSites(f, func(string) bool { return false })
	setConfig(f, "new site: 1\n")
	_, r, err = f.tryDeploy(t.Context())
	if err == nil || !strings.Contains(err.Error(), "these sites fail: new at hel1, new at nyc1;") ||
		r.Nodes[0].Outcome != "done" {
		t.Errorf("a site is added: %v, %+v", err, r.Nodes)
	}
}
