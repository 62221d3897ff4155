package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// A node publishes a report about itself every ReportEvery, for people to read: what the node does,
// which nobody's decisions depend on. Reports are in no stream. Each control node keeps the last
// one of each node in RAM, and answers questions for them on reportsSubject (see reports). So the
// reports of 500 nodes cost no consensus and no disk.
//
// A node may publish to the subject of its own name only, so a stolen credential can lie about its
// own node only. Earlier versions publish nothing, and have no report.
const (
	reportSubject  = "kaiku.report" // followed by the name of the node
	reportsSubject = "kaiku.reports"
)

const (
	// MaxReport is the size limit of a report in bytes.
	MaxReport = 4 << 10
	// ReportEvery is how often a node publishes its report.
	ReportEvery = 10 * time.Second
	// reportAge is how long a report counts.
	reportAge = 35 * time.Second
	// reportsRetry is how long a node doesn't use reports after a control node has refused them,
	// because it runs an earlier version.
	reportsRetry = 10 * time.Minute
	// maxReports is the number of nodes whose reports are kept. An answer with all of them fits
	// into a message.
	maxReports = 1536
	// maxReportsAnswer bounds an answer, in bytes after decompression.
	maxReportsAnswer = 16 << 20
)

// Reported is the last report of a node.
type Reported struct {
	Node   string          `json:"node"`
	Age    int64           `json:"age_ms"` // since it arrived
	Report json.RawMessage `json:"report"`
}

// reportsQuestion is a question for the reports of all nodes.
type reportsQuestion struct {
	Table  string `json:"table,omitempty"`  // Table of the last answer; "" means none
	Since  uint64 `json:"since,omitempty"`  // Version of the last answer
	Digest int64  `json:"digest,omitempty"` // see Digest.Since
}

// reportsAnswer has the reports that arrived since an answer. It is sent compressed.
type reportsAnswer struct {
	Table   string          `json:"table"`   // the control node's process
	Version uint64          `json:"version"` // increases with each report
	Whole   bool            `json:"whole,omitempty"`
	Reports []Reported      `json:"reports,omitempty"`
	Digest  json.RawMessage `json:"digest,omitempty"`
}

// Report publishes a report of this node, which is JSON. It doesn't wait. The control plane may
// lose a report.
func (c *Client) Report(report []byte) error {
	switch {
	case len(report) > MaxReport:
		return fmt.Errorf("a report of %d bytes, of %d at most", len(report), MaxReport)
	case !c.conn.IsConnected() || c.refusesReports():
		return errNoControl
	}
	return c.conn.Publish(reportSubject+"."+c.Node, report)
}

// refusesReports reports whether a control node refused a report a short time ago.
func (c *Client) refusesReports() bool {
	at := c.noReports.Load()
	return at != 0 && time.Since(time.Unix(0, at)) < reportsRetry
}

// isReportRefused reports whether an error of a connection means that the control node knows no
// reports.
func isReportRefused(err error) bool {
	return errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), reportSubject)
}

// Reports is what a node knows of the reports of all nodes. It asks the control plane when it is
// asked itself.
type Reports struct {
	Client *Client

	mu    sync.Mutex // held during a question
	table string
	since uint64
	last  map[string]receivedReport
}

type receivedReport struct {
	Reported
	at time.Time // of its arrival at the control node
}

// Get returns the last report of each node, by name, and what the control node's Digest has since a
// value that is the caller's. After an error, it returns what was known before.
func (r *Reports) Get(ctx context.Context, digest int64) ([]Reported, json.RawMessage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, err := r.query(ctx, digest)
	now := time.Now()
	if err == nil {
		r.learn(a, now)
	}
	out := make([]Reported, 0, len(r.last))
	for name, l := range r.last {
		if l.Age = now.Sub(l.at).Milliseconds(); l.Age > reportAge.Milliseconds() {
			delete(r.last, name)
			continue
		}
		out = append(out, l.Reported)
	}
	slices.SortFunc(out, func(a, b Reported) int { return strings.Compare(a.Node, b.Node) })
	return out, a.Digest, err
}

func (r *Reports) query(ctx context.Context, digest int64) (a reportsAnswer, err error) {
	if !r.Client.conn.IsConnected() || r.Client.refusesReports() {
		return a, errNoControl
	}
	question, err := json.Marshal(reportsQuestion{r.table, r.since, digest})
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	m, err := r.Client.conn.RequestWithContext(ctx, reportsSubject, question)
	if err != nil {
		return a, fmt.Errorf("query the reports of all nodes: %w", err)
	}
	err = decompress(m.Data, maxReportsAnswer, &a)
	return a, err
}

// learn applies an answer. Reports that another control node had stay until they are old, because
// one that has just started has only those of the last seconds.
func (r *Reports) learn(a reportsAnswer, now time.Time) {
	if r.last == nil {
		r.last = map[string]receivedReport{}
	}
	r.table, r.since = a.Table, a.Version
	for _, l := range a.Reports {
		r.last[l.Node] = receivedReport{l, now.Add(-time.Duration(l.Age) * time.Millisecond)}
	}
}
