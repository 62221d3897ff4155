package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Digest is made of the reports of all nodes by each control node, and sent to nodes with them: for
// example a history. Its methods are called by one goroutine.
type Digest interface {
	// Add is called every ReportEvery with the last report of each node.
	Add(now time.Time, reports []Reported)
	// Since returns what was added after a value of its own, as JSON; nil means nothing.
	Since(at int64) json.RawMessage
}

const (
	// reportPause is the least time between two reports of a node that count.
	reportPause = time.Second
	// wholeAge is how old an answer with all reports may be when it is sent again.
	wholeAge = 500 * time.Millisecond
)

// reports is what a control node knows of the reports of all nodes. Its fields but incoming and
// questions belong to serve.
type reports struct {
	control   *Control
	conn      *nats.Conn
	incoming  chan *nats.Msg
	questions chan *nats.Msg

	id      string
	version uint64
	last    map[string]keptReport // by node
	whole   reportsAnswer         // a recent answer with all reports
	wholeAt time.Time
}

type keptReport struct {
	report  json.RawMessage
	at      time.Time
	version uint64
}

func (c *Control) newReports() (*reports, error) {
	r := &reports{control: c, id: rand.Text(), last: map[string]keptReport{},
		incoming: make(chan *nats.Msg, maxQueries), questions: make(chan *nats.Msg, maxQueries)}
	var err error
	r.conn, _, err = inside(c.nats(), userFleet, c.secret)
	return r, err
}

// serve takes reports and answers questions until ctx ends.
func (r *reports) serve(ctx context.Context) error {
	defer r.conn.Close()
	if _, err := r.conn.ChanSubscribe(reportSubject+".*", r.incoming); err != nil {
		return fmt.Errorf("receive reports: %w", err)
	}
	// NATS prefers the control node that the asking node is connected to.
	if _, err := r.conn.ChanQueueSubscribe(reportsSubject, "control", r.questions); err != nil {
		return fmt.Errorf("answer queries about reports: %w", err)
	}
	tick := time.NewTicker(ReportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-r.incoming:
			node, _ := strings.CutPrefix(m.Subject, reportSubject+".")
			r.take(node, m.Data, time.Now())
		case m := <-r.questions:
			r.answer(m, time.Now())
		case now := <-tick.C:
			r.expire(now)
			if r.control.Digest != nil {
				r.control.Digest.Add(now, r.since(0, now))
			}
		}
	}
}

// take keeps a report. It ignores reports that no node of this version sends.
func (r *reports) take(node string, report []byte, now time.Time) {
	before, known := r.last[node]
	switch {
	case known && now.Sub(before.at) < reportPause,
		!known && len(r.last) >= maxReports,
		len(report) > MaxReport || !json.Valid(report):
		return
	}
	r.version++
	r.last[node] = keptReport{report, now, r.version}
}

// expire removes the reports of nodes that send none.
func (r *reports) expire(now time.Time) {
	for node, k := range r.last {
		if now.Sub(k.at) > reportAge {
			delete(r.last, node)
		}
	}
}

// since returns the reports that are later than a version, by name.
func (r *reports) since(version uint64, now time.Time) []Reported {
	out := []Reported{}
	for node, k := range r.last {
		if age := now.Sub(k.at); k.version > version && age <= reportAge {
			out = append(out, Reported{node, max(0, age.Milliseconds()), k.report})
		}
	}
	slices.SortFunc(out, func(a, b Reported) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// answer answers a question. A question with a Version that this process didn't give gets all
// reports.
func (r *reports) answer(m *nats.Msg, now time.Time) {
	var q reportsQuestion
	if len(m.Data) > 0 && json.Unmarshal(m.Data, &q) != nil {
		q = reportsQuestion{}
	}
	a := reportsAnswer{Table: r.id, Version: r.version}
	if q.Table == r.id && q.Since <= r.version {
		a.Reports = r.since(q.Since, now)
	} else {
		if now.Sub(r.wholeAt) > wholeAge {
			r.whole, r.wholeAt = a, now
			r.whole.Whole, r.whole.Reports = true, r.since(0, now)
		}
		a = r.whole
	}
	if r.control.Digest != nil {
		a.Digest = r.control.Digest.Since(q.Digest)
	}
	b, err := compress(a)
	if err == nil {
		err = m.Respond(b)
	}
	if err != nil {
		r.control.Log.Debug("control plane: answer a query about reports", "error", err)
	}
}
