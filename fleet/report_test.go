package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// count is a Digest that counts rounds.
type count struct{ rounds int64 }

func (c *count) Add(time.Time, []Reported) { c.rounds++ }

func (c *count) Since(at int64) json.RawMessage { return fmt.Appendf(nil, "%d", 100+at) }

// reportedBy returns the report of a node that another one gets, or "".
func reportedBy(t *testing.T, r *Reports, node string) string {
	t.Helper()
	all, _, err := r.Get(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if l.Node == node {
			return string(l.Report)
		}
	}
	return ""
}

// Each node gets the last reports of all nodes, whatever control node they are connected to.
func TestReportsReachAll(t *testing.T) {
	t.Parallel()
	nodes := makeControl(t, t.TempDir(), 3)
	for _, n := range nodes {
		n.Digest = &count{}
		n.start(t)
	}
	edge := dial(t, nodes[:1], "hel1", RoleEdge)
	name := dial(t, nodes[1:2], "ns1", RoleGeoDNS)
	readers := []*Reports{{Client: edge}, {Client: name}, {Client: dial(t, nodes[2:], "c3", RoleControl)}}
	publish := func(c *Client, text string) {
		testwait.Until(t, "it is connected", func() bool { return c.Report([]byte(text)) == nil })
	}
	testwait.Until(t, "all have both reports", func() bool {
		publish(edge, `{"a":1}`)
		publish(name, `{"b":2}`)
		for _, r := range readers {
			if _, _, err := r.Get(t.Context(), 0); err != nil {
				return false // the control plane is starting
			}
			if reportedBy(t, r, "hel1") != `{"a":1}` || reportedBy(t, r, "ns1") != `{"b":2}` {
				return false
			}
		}
		return true
	})
	testwait.Until(t, "only what is new is sent again", func() bool { // once all control nodes answer
		_ = reportedBy(t, readers[0], "hel1")
		a, err := readers[0].query(t.Context(), 7)
		return err == nil && !a.Whole && string(a.Digest) == "107"
	})
	testwait.Until(t, "the next report is there", func() bool {
		publish(edge, `{"a":2}`)
		return reportedBy(t, readers[1], "hel1") == `{"a":2}`
	})
	if got := reportedBy(t, readers[1], "ns1"); got != `{"b":2}` {
		t.Errorf("the report of the other node is %q", got)
	}
}

// Reports that another control node had stay until they are old: one that has just started has few.
func TestReportsOfAnotherTable(t *testing.T) {
	t.Parallel()
	now, r := time.Now(), &Reports{}
	one := func(table, node, report string, age int64) reportsAnswer {
		return reportsAnswer{Table: table, Version: 1, Whole: true,
			Reports: []Reported{{node, age, json.RawMessage(report)}}}
	}
	r.learn(one("a", "hel1", "1", 0), now)
	r.learn(one("b", "nyc1", "2", 100), now)
	r.learn(one("b", "hel1", "3", 100), now)
	if len(r.last) != 2 || string(r.last["hel1"].Report) != "3" || string(r.last["nyc1"].Report) != "2" ||
		r.table != "b" {
		t.Errorf("%+v", r.last)
	}
}

// A stolen credential can publish a report of its own node only, of a bounded size, and no other
// control message.
func TestReportsOfOthers(t *testing.T) {
	t.Parallel()
	a := startAbused(t)
	evil := a.dial("evil", RoleEdge)
	publish := func(subject, body string) bool {
		return evil.refused(t, fmt.Sprintf("PUB %s %d\r\n%s\r\n", subject, len(body), body))
	}
	for _, subject := range []string{reportSubject + ".hel1", reportSubject + ".*", reportSubject + ".evil.x",
		reportSubject} {
		publish(subject, `{"a":"lie"}`)
	}
	publish(reportSubject+".evil", "not JSON")
	all := &Reports{Client: a.admin}
	if got, _, err := all.Get(t.Context(), 0); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	publish(reportSubject+".evil", `{"a":"true"}`)
	testwait.Until(t, "its own report arrives", func() bool { return reportedBy(t, all, "evil") == `{"a":"true"}` })
	if !a.dial("evil", RoleEdge).refused(t, fmt.Sprintf("PUB %s.evil %d\r\n\"%s\"\r\n", reportSubject, MaxReport+1,
		strings.Repeat("x", MaxReport-1))) {
		t.Error("a report that is too large is passed on")
	}
}

// A control node keeps a bounded number of reports, of each node one a second at most, and forgets
// old ones.
func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	r := &reports{last: map[string]keptReport{}}
	now := time.Now()
	for i := range 2 * maxReports {
		r.take(fmt.Sprint("n", i), []byte("{}"), now)
	}
	if len(r.last) != maxReports {
		t.Errorf("%d reports are kept", len(r.last))
	}
	r.take("n0", []byte("1"), now.Add(reportPause/2))
	r.take("n1", []byte("1"), now.Add(reportPause))
	r.take("n2", []byte("{"), now.Add(reportPause))
	r.take("n3", make([]byte, MaxReport+1), now.Add(reportPause))
	for node, want := range map[string]string{"n0": "{}", "n1": "1", "n2": "{}", "n3": "{}"} {
		if got := string(r.last[node].report); got != want {
			t.Errorf("the report of %s is %q", node, got)
		}
	}
	later := now.Add(reportAge + reportPause)
	if got := r.since(0, later); len(got) != 1 || got[0].Node != "n1" {
		t.Errorf("%d reports count", len(got))
	}
	r.expire(later)
	if len(r.last) != 1 {
		t.Errorf("%d reports are left", len(r.last))
	}
}

// A control node of an earlier version refuses reports. Nobody logs that, and the node stops.
func TestReportsOfBefore(t *testing.T) {
	t.Parallel()
	nodes := makeControl(t, t.TempDir(), 1)
	nodes[0].older = true
	nodes[0].start(t)
	c := dial(t, nodes, "hel1", RoleEdge)
	testwait.Until(t, "it stops", func() bool {
		_ = c.Report([]byte("{}"))
		return c.refusesReports()
	})
	if _, _, err := (&Reports{Client: c}).Get(t.Context(), 0); err == nil {
		t.Error("a control node answers that knows no reports")
	}
}
