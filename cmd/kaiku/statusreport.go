package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/origin"
)

// fleetReport is what `kaiku status` prints.
type fleetReport struct {
	nodes    []admin.NodeStatus // of the fleet
	edges    []*admin.Status    // of the edges that were queried
	problems []string
	alone    bool // there is no control plane
}

func newReport(f *config.Fleet, answers []nodeAnswer) *fleetReport {
	r := &fleetReport{}
	silent := map[string]string{} // why a node can't be queried
	for _, a := range answers {
		if a.Status == nil {
			silent[a.Node] = a.Error
			continue
		}
		for _, n := range a.Status.Nodes {
			r.merge(n)
		}
	}
	if len(r.nodes) > 0 && f != nil {
		for i := range f.Nodes {
			r.expect(&f.Nodes[i])
		}
	}
	if len(r.nodes) == 0 && f != nil { // without a control plane, each node reports only itself
		r.fromAnswers(f, answers)
	}
	slices.SortFunc(r.nodes, func(a, b admin.NodeStatus) int { return strings.Compare(a.Node, b.Node) })
	for i := range r.nodes {
		r.checkNode(&r.nodes[i], silent[r.nodes[i].Node])
	}
	r.checkVersions()
	for _, a := range answers {
		if a.Status != nil {
			for _, fault := range a.Status.Faults {
				r.problem(a.Node, "%s", fault)
			}
		}
		if a.Status != nil && (f == nil || f.Node(a.Node).Has(config.RoleEdge)) {
			r.edges = append(r.edges, a.Status)
			r.checkEdge(a.Status)
		}
	}
	return r
}

// problem records a problem of a node.
func (r *fleetReport) problem(node, format string, a ...any) {
	r.problems = append(r.problems, cmp.Or(node, "edge")+": "+fmt.Sprintf(format, a...))
}

// merge adds one node's report about another node. If reports differ, the worse one counts, because
// a node that is cut off keeps its old state.
func (r *fleetReport) merge(n admin.NodeStatus) {
	i := slices.IndexFunc(r.nodes, func(have admin.NodeStatus) bool { return have.Node == n.Node })
	if i < 0 {
		r.nodes = append(r.nodes, n)
		return
	}
	have := &r.nodes[i]
	n.Disk = cmp.Or(n.Disk, have.Disk)
	n.Live, n.Ready = n.Live && have.Live, n.Ready && have.Ready
	n.Draining, n.Behind = n.Draining || have.Draining, max(n.Behind, have.Behind)
	if n.Purges >= have.Purges {
		*have = n
	} else {
		have.Live, have.Ready, have.Draining, have.Behind, have.Disk = n.Live, n.Ready, n.Draining, n.Behind, n.Disk
	}
}

// expect adds a node of the fleet file that no report has. A control node without an admin listener
// is in no report.
func (r *fleetReport) expect(n *config.Node) {
	if !n.Has(config.RoleEdge) && !n.Has(config.RoleGeoDNS) && n.Admin == "" {
		return
	}
	if !slices.ContainsFunc(r.nodes, func(have admin.NodeStatus) bool { return have.Node == n.Name }) {
		r.nodes = append(r.nodes, admin.NodeStatus{Node: n.Name, Roles: n.Roles, Region: n.Region})
	}
}

// fromAnswers sets the nodes of a fleet without a control plane, from the answers of the nodes.
func (r *fleetReport) fromAnswers(f *config.Fleet, answers []nodeAnswer) {
	r.alone = true
	for _, a := range answers {
		n := f.Node(a.Node)
		st := admin.NodeStatus{Node: n.Name, Roles: n.Roles, Region: n.Region}
		if a.Status != nil {
			st.Live, st.Ready, st.Version, st.Started = true, true, a.Status.Version, a.Status.Started
		}
		r.nodes = append(r.nodes, st)
	}
}

// checkNode records the problems of a node. silent is why it can't be queried, or "".
func (r *fleetReport) checkNode(n *admin.NodeStatus, silent string) {
	switch {
	case r.alone && silent != "":
		r.problem(n.Node, "it can't be queried: %s", silent)
	case !n.Live && silent != "":
		r.problem(n.Node, "it is offline: it sends no reports to the control plane, and can't be queried: %s", silent)
	case silent != "":
		r.problem(n.Node, "it is online, but can't be queried from here: %s", silent)
	case !n.Live && n.Started.IsZero():
		r.problem(n.Node, "it is offline, and has never been online: deploy it, or start it")
	case !n.Live:
		r.problem(n.Node, "it is offline: it has stopped sending reports to the control plane")
	case !n.Ready:
		r.problem(n.Node, "it is behind with purges: until it has applied them, it revalidates everything with the origin")
	}
	switch n.Disk {
	case fleet.DiskScarce:
		r.problem(n.Node, "its disk is nearly full: free some space; if the disks of most control nodes are full, the fleet refuses purges")
	case fleet.DiskFull:
		r.problem(n.Node, "its disk is full, so it stores no purges: free some space; if the disks of most control nodes are full, the fleet refuses purges")
	}
	if n.Draining {
		r.problem(n.Node, "it is drained: name servers send it no clients until you run kaiku undrain %s", n.Node)
	}
}

func (r *fleetReport) checkVersions() {
	versions := map[string][]string{}
	for _, n := range r.nodes {
		if n.Live {
			versions[n.Version] = append(versions[n.Version], n.Node)
		}
	}
	if len(versions) < 2 {
		return
	}
	var parts []string
	for v, nodes := range versions {
		parts = append(parts, fmt.Sprintf("%s on %s", shortVersion(v), strings.Join(nodes, ", ")))
	}
	slices.Sort(parts)
	r.problems = append(r.problems, "versions differ: "+strings.Join(parts, "; "))
}

func (r *fleetReport) checkEdge(st *admin.Status) {
	for _, p := range st.Origins {
		for _, s := range p.Servers {
			hint := ""
			if s.LastFailure != nil && s.LastFailure.Hint != "" {
				hint = "\n    hint: " + s.LastFailure.Hint
			}
			switch failed := failedRequests(s); {
			case !s.Up():
				r.problem(st.Name, "origin %s of %s is %s: %s%s", s.Server, p.Site, s.State,
					cmp.Or(s.Why, "the reason is unknown"), hint)
			case failed > 0 && failed >= s.Requests && s.LastFailure != nil: // too few for the server to count as down
				r.problem(st.Name, "origin %s of %s: %d of %s failed: %s%s", s.Server, p.Site, s.Requests,
					words.Count(int(s.Requests), "request"), s.LastFailure.Error, hint)
			}
		}
		if p.Waiting > 0 {
			r.problem(st.Name, "%d requests are queued for an origin server of %s: it is too slow, or origin.max_requests is too low", p.Waiting, p.Site)
		}
	}
	for _, o := range st.Outages {
		r.problem(st.Name, "the origin of %s has not answered in time since %s, so the edge serves stale responses without waiting: %s", o.Site,
			o.Since.Local().Format(time.DateTime), o.Last.Error)
	}
	for _, c := range st.Certificates {
		switch {
		case c.DaysLeft == nil:
			r.problem(st.Name, "there is no certificate for %s yet", c.Name)
		case *c.DaysLeft < 0:
			r.problem(st.Name, "the certificate for %s has expired", c.Name)
		case *c.DaysLeft < c.Days/4: // certificates from ACME are renewed earlier
			r.problem(st.Name, "the certificate for %s expires in %s", c.Name, days(*c.DaysLeft))
		}
	}
	if s := st.Store; s.Refused > 0 {
		r.problem(st.Name, "%d responses were not stored, because the disk was nearly full: free some space, or lower edge.disk", s.Refused)
	}
	if s := st.Store; s.Damaged > 0 {
		r.problem(st.Name, "%d stored responses were damaged and had to be fetched again: check the disk", s.Damaged)
	}
}

// failedRequests returns the number of failed requests to a server, for any reason.
func failedRequests(s origin.ServerStatus) uint64 {
	var failed uint64
	for _, n := range s.Failures {
		failed += n
	}
	return failed
}
