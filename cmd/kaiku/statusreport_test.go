package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// reportOf returns what status prints.
func reportOf(t *testing.T, f *config.Fleet, answers []nodeAnswer) string {
	t.Helper()
	var out bytes.Buffer
	if err := newReport(f, answers).print(&out, false); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A server that failed only some requests is not a problem.
func TestStatusReportToleratesFailures(t *testing.T) {
	f, answers := aFleet()
	s := &answers[0].Status.Origins[0].Servers[0]
	s.Requests, s.Failures, s.LastFailure = 3, map[string]uint64{"connection-error": 2},
		&origin.Failure{Error: "refused"}
	if out := reportOf(t, f, answers); !strings.HasPrefix(out, "3 of 3 nodes ready, no problems\n") {
		t.Error(out)
	}
}

// The report warns of a nearly full disk of a control node before purges are refused.
func TestStatusReportOfDisks(t *testing.T) {
	f, answers := aFleet()
	answers[1].Status.Nodes[0].Disk = fleet.DiskScarce
	answers[2].Status.Nodes[1].Disk = fleet.DiskFull
	out := reportOf(t, f, answers)
	if !strings.Contains(out, "helsinki1: its disk is nearly full") ||
		!strings.Contains(out, "newyork1: its disk is full") {
		t.Error(out)
	}
}

// aFleet returns the answers of three nodes, with large figures.
func aFleet() (*config.Fleet, []nodeAnswer) {
	f := &config.Fleet{Nodes: []config.Node{{Name: "helsinki1", Roles: []string{"control", "edge", "geodns"}},
		{Name: "newyork1", Roles: []string{"control", "edge"}}, {Name: "singapor1", Roles: []string{"edge"}}}}
	started := time.Now().Add(-100 * 24 * time.Hour)
	var nodes []admin.NodeStatus
	for _, n := range f.Nodes {
		nodes = append(nodes, admin.NodeStatus{Node: n.Name, Roles: n.Roles, Region: "europe",
			Version: strings.Repeat("a", 40), Live: true, Ready: true, Load: 1, Purges: 1234567, Started: started})
	}
	var answers []nodeAnswer
	for _, n := range f.Nodes {
		left := 80.0
		answers = append(answers, nodeAnswer{Node: n.Name,
			Status: &admin.Status{Name: n.Name, Nodes: append([]admin.NodeStatus{}, nodes...),
				Traffic:      front.Traffic{Requests: 100_000_000, Hits: 98_765_432, Errors: 123_456, Bytes: 123 << 40},
				Store:        storage.Stats{Objects: 12_345_678, Bytes: 99, Disk: 100},
				Certificates: []certs.Status{{Name: "www.example.com", From: "acme", DaysLeft: &left, Days: 90}},
				Origins: []origin.Status{{Site: "www",
					Servers: []origin.ServerStatus{{Server: "https://origin.example.net", State: "up"}}}}}})
	}
	return f, answers
}

// What an operator needs first comes first. The tables fit a terminal of 100 columns.
func TestStatusReport(t *testing.T) {
	f, answers := aFleet()
	well := reportOf(t, f, answers)
	if !strings.HasPrefix(well, "3 of 3 nodes ready, no problems\n") ||
		!strings.Contains(well, "\nall        300000000  98.8 %  0.1 %   369.0 TiB") {
		t.Errorf("a fleet that is well:\n%s", well)
	}
	for line := range strings.Lines(well) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, c := range []struct {
		says   string
		change func(f *config.Fleet, answers []nodeAnswer)
	}{
		{"helsinki1: origin https://origin.example.net of www is unhealthy: refused",
			func(_ *config.Fleet, a []nodeAnswer) {
				a[0].Status.Origins[0].Servers[0].State, a[0].Status.Origins[0].Servers[0].Why = "unhealthy", "refused"
			}},
		{"helsinki1: origin https://origin.example.net of www: 2 of 2 requests failed: refused",
			func(_ *config.Fleet, a []nodeAnswer) {
				s := &a[0].Status.Origins[0].Servers[0]
				s.Requests, s.Failures, s.LastFailure = 2, map[string]uint64{"connection-error": 1, "timeout": 1},
					&origin.Failure{Error: "refused", Hint: "start it"}
			}},
		{"helsinki1: the origin of www has not answered in time since ", func(_ *config.Fleet, a []nodeAnswer) {
			a[0].Status.Outages = []cache.Outage{{Site: "www", Since: time.Now(),
				Last: origin.Failure{Error: "timeout"}}}
		}},
		{"helsinki1: the certificate for www.example.com expires in 20 days",
			func(_ *config.Fleet, a []nodeAnswer) { *a[0].Status.Certificates[0].DaysLeft = 20 }},
		{"helsinki1: the certificate for www.example.com has expired",
			func(_ *config.Fleet, a []nodeAnswer) { *a[0].Status.Certificates[0].DaysLeft = -1 }},
		{"helsinki1: there is no certificate for www.example.com yet",
			func(_ *config.Fleet, a []nodeAnswer) { a[0].Status.Certificates[0].DaysLeft = nil }},
		// the others run on with what they know
		{"newyork1: it is offline: it has stopped sending reports to the control plane",
			func(_ *config.Fleet, a []nodeAnswer) { a[2].Status.Nodes[1].Live = false }},
		{"newyork1: it is behind with purges",
			func(_ *config.Fleet, a []nodeAnswer) { a[0].Status.Nodes[1].Ready = false }},
		{"newyork1: it is drained: name servers send it no clients until you run kaiku undrain newyork1",
			func(_ *config.Fleet, a []nodeAnswer) { a[0].Status.Nodes[1].Draining = true }},
		{"newyork1: it is online, but can't be queried from here: no route",
			func(_ *config.Fleet, a []nodeAnswer) { a[1] = nodeAnswer{Node: "newyork1", Error: "no route"} }},
		{"paris1: it is offline, and has never been online: deploy it, or start it", func(f *config.Fleet, _ []nodeAnswer) {
			f.Nodes = append(f.Nodes, config.Node{Name: "paris1", Roles: []string{"geodns"}})
		}},
		{"versions differ: aaaaaaaaaaaa on helsinki1, newyork1; b on singapor1", func(_ *config.Fleet, a []nodeAnswer) {
			for i := range a {
				a[i].Status.Nodes[2].Version = "b"
			}
		}},
		{"helsinki1: 3 responses were not stored, because the disk was nearly full",
			func(_ *config.Fleet, a []nodeAnswer) { a[0].Status.Store.Refused = 3 }},
		{"helsinki1: it can't be queried: no route", func(_ *config.Fleet, a []nodeAnswer) { // without a control plane
			a[0] = nodeAnswer{Node: "helsinki1", Error: "no route"}
			a[1].Status.Nodes, a[2].Status.Nodes = nil, nil
		}},
	} {
		f, answers := aFleet()
		c.change(f, answers)
		lines := strings.Split(reportOf(t, f, answers), "\n")
		if !strings.HasSuffix(lines[0], " ready, 1 problem:") || !strings.HasPrefix(lines[1], "  "+c.says) {
			t.Errorf("want %q first:\n%s", c.says, strings.Join(lines, "\n"))
		}
	}
}
