package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Nodes ask for the end of the purge log here, to learn what they have not applied.
//
// A leader that is cut off takes itself for the leader for a while, so its answer proves nothing.
// The control node that is asked reads a majority instead: it asks all copies of the log how far
// they are, and takes the newest of a majority. A purge is acknowledged once a majority has it on
// disk, and two majorities share a node. So the answer includes all purges that were acknowledged
// before the question, whoever is the leader. Without a majority there is no answer. No clock is
// involved.
//
// Entries that only one copy has count once a majority has them, too, with the same mark at the
// end. A copy that was away while the others lost a part of the log, such as by an old backup, has
// entries that are no longer in the log.
const (
	endSubject  = "kaiku.log.end"  // a node asks its control node
	copySubject = "kaiku.log.copy" // a control node asks all control nodes
)

const (
	// endTime bounds a read of a majority.
	endTime = 2 * time.Second
	// endEvery is the pause between two reads. All questions that arrive meanwhile share one read.
	// The pause is longer by endEach for each question that shared the last read, up to endSeldom.
	endEvery  = 50 * time.Millisecond
	endEach   = 5 * time.Millisecond
	endSeldom = 250 * time.Millisecond
	// maxQueries bounds the nodes that wait for one read. A node has one question at a time.
	maxQueries = maxGateConns
	// settlePoll is how often a copy checks whether it has applied all that is on its disk.
	settlePoll = 2 * time.Millisecond
	// retryAfter is the first pause before all copies are asked again: those that lacked entries
	// may have them by then. The pause doubles each time.
	retryAfter = 50 * time.Millisecond
	// maxQueriedCopies bounds the unanswered questions for a node's copy.
	maxQueriedCopies = maxReplicas * 16
)

// logEnd is the end of the log, confirmed by a majority of its copies.
type logEnd struct {
	Log   uint64 `json:"log"`
	First uint64 `json:"first"` // first sequence; Last+1 if the log is empty
	Last  uint64 `json:"last"`
	Mark  uint64 `json:"mark,omitempty"`  // of the last entry, see markOf
	Error string `json:"error,omitempty"` // why there is no end
	Taken bool   `json:"taken,omitempty"` // see endQuestion
}

// copyState is how far one copy of the log is.
type copyState struct {
	Node  string   `json:"node,omitempty"`
	Peer  string   `json:"peer"`  // the control node of the copy, by its name in Raft
	Peers []string `json:"peers"` // all control nodes with copies that this one knows, including Peer
	Blank bool     `json:"blank"` // the copy never had an entry: its disk may be new
	logEnd
}

// queryEnd asks for the end of the log on a connection. q is an addition to the question; may be
// nil. It fails with nats.ErrNoResponders if the control nodes run an earlier version, or are
// starting or stopping.
func queryEnd(ctx context.Context, conn *nats.Conn, q *endQuestion) (logEnd, error) {
	var b []byte
	if q != nil {
		var err error
		if b, err = json.Marshal(q); err != nil {
			return logEnd{}, err
		}
	}
	m, err := conn.RequestWithContext(ctx, endSubject, b)
	if err != nil {
		return logEnd{}, err
	}
	var end logEnd
	if err := json.Unmarshal(m.Data, &end); err != nil {
		return logEnd{}, err
	}
	if end.Error != "" {
		return logEnd{}, fmt.Errorf("%w: %s", ErrUnavailable, end.Error)
	}
	return end, nil
}

// confirm returns the end of the log: no more entries than a majority of the copies had at the
// first question, and at least those that a majority had at the last one. Both lists have the same
// copies.
func confirm(first, last []copyState) (logEnd, error) {
	if len(first) == 0 {
		return logEnd{}, errors.New("no copy of the purge log answers")
	}
	sorted := slices.SortedFunc(slices.Values(first), func(a, b copyState) int { return cmp.Compare(a.Last, b.Last) })
	for _, end := range sorted {
		upTo := slices.DeleteFunc(slices.Clone(first), func(c copyState) bool {
			return c.Last > end.Last || c.differs(end)
		})
		from := slices.DeleteFunc(slices.Clone(last), func(c copyState) bool {
			return c.Last < end.Last || c.differs(end)
		})
		if isMajority(upTo) && isMajority(from) {
			return end.logEnd, nil
		}
	}
	return logEnd{}, fmt.Errorf("%d copies of the purge log answer, but no majority agrees on its end", len(first))
}

// differs reports whether two copies are known to be of different logs, or of different histories
// of one log.
func (c copyState) differs(o copyState) bool {
	return c.Log != o.Log || c.Last == o.Last && differ(c.Mark, o.Mark)
}

// isMajority reports whether copies are a majority by the membership that each of them knows: these
// differ while members change. A blank copy may have lost entries that it had acknowledged, so it
// counts only if all copies are there.
func isMajority(copies []copyState) bool {
	for _, c := range copies {
		n, blank := 0, false
		for _, o := range copies {
			if slices.Contains(c.Peers, o.Peer) {
				n++
				blank = blank || o.Blank
			}
		}
		if need := len(c.Peers)/2 + 1; n < need || blank && n < len(c.Peers) {
			return false
		}
	}
	return len(copies) > 0
}

// logReader answers questions for the end of the log, and questions of other control nodes for this
// node's copy.
type logReader struct {
	control *Control
	conn    *nats.Conn
	queries chan *nats.Msg
	logged  string // the last warning about copies that differ; serveEnds's own
}

func (c *Control) newLogReader() (*logReader, error) {
	r := &logReader{control: c, queries: make(chan *nats.Msg, maxQueries)}
	var err error
	if r.conn, _, err = inside(c.nats(), userFleet, c.secret); err != nil {
		return nil, err
	}
	return r, nil
}

// serve answers until ctx ends.
func (r *logReader) serve(ctx context.Context) error {
	defer r.conn.Close()
	copies := make(chan *nats.Msg, maxQueriedCopies)
	if _, err := r.conn.ChanSubscribe(copySubject, copies); err != nil {
		return fmt.Errorf("answer queries about the purge log: %w", err)
	}
	// NATS prefers the control node that the asking node is connected to.
	if _, err := r.conn.ChanQueueSubscribe(endSubject, "control", r.queries); err != nil {
		return fmt.Errorf("answer queries about the purge log: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.serveEnds(ctx)
	}()
	defer func() { <-done }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-copies:
			queries := drain(m, copies)
			state, err := r.control.copyState(ctx)
			if err != nil {
				continue // the copy counts as missing
			}
			for _, m := range queries {
				r.answer(m, state)
			}
		}
	}
}

// drain returns a message, and those that are waiting behind it.
func drain(m *nats.Msg, more <-chan *nats.Msg) []*nats.Msg {
	all := []*nats.Msg{m}
	for range len(more) {
		all = append(all, <-more)
	}
	return all
}

// serveEnds answers questions. Each read answers all questions that arrived before it began.
func (r *logReader) serveEnds(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		var queries []*nats.Msg
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return
		case m := <-r.queries:
			queries = drain(m, r.queries)
		}
		pause.Reset(min(endEvery+time.Duration(len(queries)-1)*endEach, endSeldom))
		end, err := r.read(ctx)
		if err != nil {
			end.Error = err.Error()
		}
		for _, m := range queries {
			var q endQuestion
			end.Taken = len(m.Data) > 0 && json.Unmarshal(m.Data, &q) == nil && q.Taken // set by the gate
			r.answer(m, end)
		}
	}
}

func (r *logReader) answer(m *nats.Msg, v any) {
	b, err := json.Marshal(v)
	if err == nil {
		err = m.Respond(b)
	}
	if err != nil {
		r.control.Log.Debug("control plane: answer a query about the purge log", "error", err)
	}
}

// read asks all copies until a majority agrees.
func (r *logReader) read(ctx context.Context) (logEnd, error) {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	inbox, answers := r.conn.NewInbox(), make(chan *nats.Msg, 64)
	sub, err := r.conn.ChanSubscribe(inbox, answers) // SubscribeSync would allocate half a megabyte
	if err != nil {
		return logEnd{}, fmt.Errorf("read the purge log: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	var first, last []copyState
	why := errors.New("no copy of the purge log answers")
	for wait := retryAfter; ctx.Err() == nil; wait *= 2 {
		if err := r.conn.PublishRequest(copySubject, inbox, nil); err != nil {
			return logEnd{}, fmt.Errorf("read the purge log: %w", err)
		}
		round, cancel := context.WithTimeout(ctx, wait)
		for round.Err() == nil {
			var m *nats.Msg
			select {
			case m = <-answers:
			case <-round.Done():
				continue
			}
			var c copyState
			if json.Unmarshal(m.Data, &c) != nil {
				continue
			}
			if i := slices.IndexFunc(last, func(o copyState) bool { return o.Peer == c.Peer }); i >= 0 {
				last[i] = c
			} else {
				first, last = append(first, c), append(last, c)
			}
			var end logEnd
			if end, why = confirm(first, last); why == nil {
				cancel()
				r.logDifference(last)
				return end, nil
			}
		}
		cancel()
	}
	r.logDifference(last)
	return logEnd{}, why
}

// logDifference logs that control nodes have different entries with the same sequence.
func (r *logReader) logDifference(copies []copyState) {
	text := ""
	for i, c := range copies {
		for _, o := range copies[:i] {
			if c.differs(o) {
				text = fmt.Sprintf("%s and %s", o.Node, c.Node)
			}
		}
	}
	if text != "" && text != r.logged {
		r.control.Log.Error("control plane: two control nodes have different purge logs, as after restoring a backup: "+
			"stop the one with the wrong log, move its folder aside, and start it again: it gets the log from the others", "nodes", text)
	}
	r.logged = text
}

// copyState returns the state of this node's copy. It waits until everything on the node's disk is
// applied: all that it has acknowledged counts, whether it knows of a majority or not.
func (c *Control) copyState(ctx context.Context) (copyState, error) {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	known := c.logGroup.Load()
	state := copyState{Node: c.Node, Peer: c.Node, Peers: []string{c.Node}}
	if known != nil && *known != "" {
		if err := c.awaitGroup(ctx, *known, &state); err != nil {
			c.logGroup.Store(nil) // the log may be in another group now
			return copyState{}, err
		}
	}
	s, err := c.localLog()
	if err != nil {
		return copyState{}, err
	}
	group := s.RaftGroup
	if s.Config.Replicas <= 1 && group != "" {
		// A log with a single replica has no group, except while it moves to another control node.
		// Then the new copy lacks entries, and must not pass for the whole log.
		if _, err := c.raftGroup(group); errors.Is(err, errNoCopy) {
			group = ""
		} else if err != nil {
			return copyState{}, err
		}
	}
	if known == nil || *known != group {
		if known = &group; ctx.Err() != nil {
			return copyState{}, ctx.Err()
		}
		c.logGroup.Store(known)
		return c.copyState(ctx)
	}
	state.logEnd = logEnd{Log: logID(s.Config.Metadata, s.Created), First: s.State.FirstSeq, Last: s.State.LastSeq,
		Mark: markOf(s.State.LastSeq, s.State.LastTime)}
	return state, nil
}

// awaitGroup waits until all entries of a group on the node's disk are applied, and records the
// members of the group.
func (c *Control) awaitGroup(ctx context.Context, name string, state *copyState) error {
	group, err := c.raftGroup(name)
	if err != nil {
		return err
	}
	state.Peer, state.Peers, state.Blank = group.ID, []string{group.ID}, group.PIndex == 0
	for id := range group.Peers {
		state.Peers = append(state.Peers, id)
	}
	for onDisk := group.PIndex; group.Applied < onDisk; {
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return ctx.Err()
		}
		if group, err = c.raftGroup(name); err != nil {
			return err
		}
	}
	return nil
}

var errNoCopy = errors.New("this control node has no copy of the purge log")

// localLog returns the node's own copy.
func (c *Control) localLog() (*server.StreamDetail, error) {
	info, err := c.nats().Jsz(&server.JSzOptions{Account: server.DEFAULT_GLOBAL_ACCOUNT, Streams: true, Config: true,
		RaftGroups: true})
	if err != nil {
		return nil, err
	}
	for _, a := range info.AccountDetails {
		for i := range a.Streams {
			if a.Streams[i].Name == purgeStream && a.Streams[i].Config != nil {
				return &a.Streams[i], nil
			}
		}
	}
	return nil, errNoCopy
}

// raftGroup returns what the node knows of the group that keeps the log.
func (c *Control) raftGroup(name string) (*server.RaftzGroup, error) {
	for _, groups := range *c.nats().Raftz(&server.RaftzOptions{AccountFilter: server.DEFAULT_GLOBAL_ACCOUNT,
		GroupFilter: name}) {
		if g, ok := groups[name]; ok {
			if g.WALError != nil {
				return nil, g.WALError
			}
			return &g, nil
		}
	}
	return nil, errNoCopy
}

// logID returns the identity of a log: the time of its creation. A log that replaces another one
// has a different identity, and a log that is converted keeps its own.
func logID(metadata map[string]string, created time.Time) uint64 {
	if n, err := strconv.ParseUint(metadata[logMetadata], 10, 64); err == nil {
		return n
	}
	return uint64(created.UnixNano())
}

// logOf returns the logID of a stream.
func logOf(info *jetstream.StreamInfo) uint64 { return logID(info.Config.Metadata, info.Created) }
