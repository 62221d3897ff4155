package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/purge"
)

// LiveEvent is an event of GET /v1/live. The first one has everything. The next ones have what has
// changed.
type LiveEvent struct {
	At    int64    `json:"at"`   // in milliseconds of Unix time
	Node  string   `json:"node"` // that answers
	Whole bool     `json:"whole,omitempty"`
	Nodes []Live   `json:"nodes,omitempty"`
	Now   *Point   `json:"now"`
	Past  []Point  `json:"past,omitempty"`  // of the last hour
	Error string   `json:"error,omitempty"` // why the reports of other nodes can't be had
	Fault []string `json:"faults,omitempty"`
}

// Live is what is known about a node.
type Live struct {
	NodeStatus
	Leased   bool        `json:"leased"` // the control plane has its lease; false on a node that is down
	Location *[2]float64 `json:"location,omitempty"`
	Report   *Report     `json:"report,omitempty"`
}

const (
	liveEvery = 2 * time.Second
	// maxListeners bounds the open streams of a node.
	maxListeners = 32
	// liveWrite is how long a listener may take to read an event.
	liveWrite = 10 * time.Second
)

// live is the state that is streamed. It is brought up to date when a listener needs it, once for
// all listeners.
type live struct {
	mu      sync.Mutex
	at      time.Time
	version uint64
	whole   uint64               // version since which no node has gone
	nodes   map[string]liveEntry // by name
	now     Point
	past    History
	err     string

	listeners int
}

type liveEntry struct {
	text    json.RawMessage // of a Live
	version uint64
}

// serveLive answers GET /v1/live with server-sent events, until the client is gone, or may not see
// them any more.
func (s *Server) serveLive(w http.ResponseWriter, r *http.Request) {
	if !s.live.enter() {
		w.Header().Set("Retry-After", "10")
		purge.Fail(w, http.StatusServiceUnavailable,
			"too many pages are open at this node: close one, or open another node's")
		return
	}
	defer s.live.leave()
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	grant := purge.GrantOf(r.Context())
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for version, past := uint64(0), int64(0); ; {
		event, now, last := s.liveEvent(r.Context(), version, past)
		if err := control.SetWriteDeadline(time.Now().Add(liveWrite)); err != nil {
			return
		}
		if _, err := w.Write(event); err != nil || control.Flush() != nil {
			return
		}
		version, past = now, last
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-s.ending:
			return
		}
		if !s.Purger.Tokens.Holds(grant, purge.ScopeRead) {
			return
		}
	}
}

// enter counts a listener, and reports whether there is room for it.
func (l *live) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listeners >= maxListeners {
		return false
	}
	l.listeners++
	return true
}

func (l *live) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listeners--
}

// liveEvent returns the event for a listener that has all up to a version and a time.
func (s *Server) liveEvent(ctx context.Context, version uint64, past int64) (event []byte, now uint64, last int64) {
	l := &s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := time.Now(); at.Sub(l.at) >= liveEvery/2 {
		s.refresh(ctx, at)
	}
	e := struct {
		LiveEvent
		Nodes []json.RawMessage `json:"nodes,omitempty"`
	}{LiveEvent: LiveEvent{At: l.at.UnixMilli(), Node: s.Purger.Node, Whole: version < l.whole || version == 0,
		Now: &l.now, Past: l.past.Since(past), Error: l.err}}
	if s.Faults != nil {
		e.Fault = s.Faults()
	}
	for _, name := range slices.Sorted(maps.Keys(l.nodes)) {
		if n := l.nodes[name]; e.Whole || n.version > version {
			e.Nodes = append(e.Nodes, n.text)
		}
	}
	if n := len(e.Past); n > 0 {
		past = e.Past[n-1].At
	}
	text, err := json.Marshal(e)
	if err != nil {
		s.Log.Error("encode the state of the fleet", "error", err)
		text = []byte("{}")
	}
	return slices.Concat([]byte("data: "), text, []byte("\n\n")), l.version, past
}

// refresh brings the state up to date. The caller holds live.mu.
func (s *Server) refresh(ctx context.Context, now time.Time) {
	l := &s.live
	nodes, reports, points, err := s.fleetNow(ctx, l.past.last())
	l.at, l.err, l.now = now, "", pointOf(now, reports)
	l.past.add(points...)
	if err != nil {
		l.err = err.Error()
	}
	l.version++
	next := make(map[string]liveEntry, len(nodes))
	for _, n := range nodes {
		text, err := json.Marshal(n)
		if err != nil {
			s.Log.Error("encode the state of a node", "node", n.Node, "error", err)
			continue
		}
		e := l.nodes[n.Node]
		if !bytes.Equal(e.text, text) {
			e = liveEntry{text, l.version}
		}
		next[n.Node] = e
	}
	for name := range l.nodes {
		if _, ok := next[name]; !ok {
			l.whole = l.version
		}
	}
	l.nodes = next
}

// fleetNow returns what this node knows of all nodes, and what there is of the fleet's history
// since a time.
func (s *Server) fleetNow(ctx context.Context, since int64) ([]Live, []Reported, []Point, error) {
	own := s.Reporter.Last()
	if s.Fleet == nil {
		n := Live{NodeStatus: NodeStatus{Node: s.Purger.Node, Version: s.Version, Live: true, Ready: s.Purger.Trusts(),
			Started: s.started}, Leased: true, Location: own.Location, Report: &own}
		if s.Edge != nil {
			n.Roles = []string{"edge"}
			n.Purges = s.Edge.Store.Epoch()
		}
		return []Live{n}, []Reported{{Node: n.Node, Report: own}}, s.own.Since(since), nil
	}
	reports, points, err := s.Fleet.Reports(ctx, since)
	reports = slices.DeleteFunc(reports, func(r Reported) bool { return r.Node == s.Purger.Node })
	reports = append(reports, Reported{Node: s.Purger.Node, Report: own}) // it is newer
	by := map[string]*Report{}
	for i := range reports {
		by[reports[i].Node] = &reports[i].Report
	}
	var out []Live
	leased := map[string]bool{}
	add := func(n NodeStatus, leased bool) {
		l := Live{NodeStatus: n, Leased: leased, Location: s.Fleet.Location(n.Node), Report: by[n.Node]}
		if l.Location == nil && l.Report != nil {
			l.Location = l.Report.Location
		}
		out = append(out, l)
	}
	for _, n := range s.Fleet.Nodes() {
		leased[n.Node] = true
		add(n, true)
	}
	for _, name := range s.Fleet.Names() {
		if !leased[name] {
			add(NodeStatus{Node: name}, false)
		}
	}
	return out, reports, points, err
}
