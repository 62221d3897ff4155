package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Subjects for questions to the leader of the control nodes' group.
const (
	membersSubject = "kaiku.control.members"
	removeSubject  = "kaiku.control.remove"
)

// Members are the control nodes that form the control plane, which may differ from the fleet file.
type Members struct {
	// Grouped is false for a node that has always been alone.
	Grouped bool `json:"grouped"`
	// Current has all members, and whether each is connected and up to date.
	Current map[string]bool `json:"current"`
}

// Names returns the members' names.
func (m *Members) Names() []string { return slices.Sorted(maps.Keys(m.Current)) }

// Name replaces members' numbers by their names. The control plane knows only the numbers of
// members that nobody saw since the leader started.
func (m *Members) Name(nodes ...string) {
	for _, n := range nodes {
		if current, ok := m.Current["#"+peerID(n)]; ok {
			delete(m.Current, "#"+peerID(n))
			m.Current[n] = current
		}
	}
}

// Others returns how many members other than a node are up to date.
func (m *Members) Others(node string) int {
	n := 0
	for name, current := range m.Current {
		if name != node && current {
			n++
		}
	}
	return n
}

// removal is the state of the removal of a member.
type removal struct {
	Done  bool   `json:"done"`
	Waits string `json:"waits,omitempty"` // what it waits for
	Error string `json:"error,omitempty"` // why it will never be done
}

// membership answers questions for the members, and removes members. Only the leader of the group
// does.
type membership struct {
	control *Control
	conn    *nats.Conn // to the account with the streams
	js      jetstream.JetStream
	system  *nats.Conn
	removed chan struct{} // receives a value when this node was removed
}

func (c *Control) newMembership() (*membership, error) {
	m := &membership{control: c, removed: make(chan struct{}, 1)}
	var err error
	if m.conn, m.js, err = inside(c.nats(), userFleet, c.secret); err != nil {
		return nil, err
	}
	if m.system, _, err = inside(c.nats(), userSystem, c.secret); err != nil {
		m.conn.Close()
		return nil, err
	}
	answer := func(subject string, do func([]byte) any) {
		if err != nil {
			return
		}
		_, err = m.conn.Subscribe(subject, func(msg *nats.Msg) {
			if c.group != "" && !c.nats().JetStreamIsLeader() {
				return
			}
			b, err := json.Marshal(do(msg.Data))
			if err == nil {
				err = msg.Respond(b)
			}
			if err != nil {
				c.Log.Warn("control plane: answer a query about its members", "error", err)
			}
		})
	}
	answer(membersSubject, func([]byte) any { return m.members() })
	answer(removeSubject, func(b []byte) any {
		out, err := m.remove(string(b))
		if err != nil {
			out.Error = err.Error()
		}
		return out
	})
	if err == nil {
		_, err = m.system.Subscribe(server.JSAdvisoryServerRemoved, func(msg *nats.Msg) {
			var adv server.JSServerRemovedAdvisory
			if json.Unmarshal(msg.Data, &adv) == nil && adv.ServerID == c.nats().ID() {
				select {
				case m.removed <- struct{}{}:
				default:
				}
			}
		})
	}
	if err == nil {
		err = errors.Join(m.conn.Flush(), m.system.Flush())
	}
	if err != nil {
		m.close()
		return nil, fmt.Errorf("answer queries about the control plane's members: %w", err)
	}
	return m, nil
}

func (m *membership) close() {
	m.conn.Close()
	m.system.Close()
}

// members returns the members, if this node is the leader.
func (m *membership) members() *Members {
	out := &Members{Grouped: m.control.group != "", Current: map[string]bool{m.control.Node: true}}
	meta := m.control.meta()
	if meta == nil {
		return out
	}
	for _, p := range meta.Replicas {
		out.Current[m.name(p)] = p.Current && !p.Offline
	}
	return out
}

// name returns the name of a member, or its number if nobody has seen it since the leader started.
func (m *membership) name(p *server.PeerInfo) string {
	if p.Name != "" && peerID(p.Name) == p.Peer {
		return p.Name
	}
	return "#" + p.Peer
}

// idOf returns NATS's ID of a member from its name or number.
func idOf(node string) string {
	if id, ok := strings.CutPrefix(node, "#"); ok {
		return id
	}
	return peerID(node)
}

// remove does one step of the removal of a member. First its streams move to other members, with as
// many replicas as members will remain. Then it leaves the group, and the streams of a member that
// is down move. Raft guarantees that there are never two majorities, and that nothing is lost that
// a majority had.
func (m *membership) remove(node string) (removal, error) {
	all, id := m.members(), idOf(node)
	name, stay, there := "", 0, 0
	for n, current := range all.Current {
		if idOf(n) == id {
			name = n
			continue
		}
		stay++
		if current {
			there++
		}
	}
	switch {
	case name == "":
		return removal{Done: true}, nil
	case stay == 0:
		return removal{}, fmt.Errorf("%s is the only control node that has the log of purges: add another one first",
			node)
	case there < stay/2+1:
		return removal{Waits: fmt.Sprintf("only %d of the other %d control nodes have all that the group agreed on",
			there, stay)}, nil
	case name == m.control.Node:
		return removal{Waits: "another control node must become leader of the group first"}, requestChange(m.system,
			server.JSApiLeaderStepDown,
			nil)
	}
	waits := ""
	for _, stream := range streamNames() { // all at the same time
		if !all.Current[name] {
			break // it can't hand over anything; a majority of the others has everything
		}
		w, err := m.vacate(stream, id, stay)
		if err != nil {
			return removal{}, err
		}
		if waits == "" {
			waits = w
		}
	}
	if waits != "" {
		return removal{Waits: waits}, nil
	}
	return removal{Waits: "the group has to agree first"}, requestChange(m.system, server.JSApiRemoveServer,
		server.JSApiMetaServerRemoveRequest{Server: node, Peer: id})
}

// vacate moves a stream away from a member. waits says what is still missing; "" means nothing.
func (m *membership) vacate(name, id string, stay int) (waits string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	stream, err := m.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return "", nil
	}
	if err != nil {
		return fmt.Sprintf("%s does not answer: %v", name, err), nil
	}
	info := stream.CachedInfo()
	if info.Cluster == nil || info.Cluster.Leader == "" {
		return name + " has no leader yet", nil
	}
	has, others, current := peerID(info.Cluster.Leader) == id, 0, 0
	if !has {
		others, current = 1, 1
	}
	for _, r := range info.Cluster.Replicas {
		switch {
		case peerID(r.Name) == id || strings.Contains(r.Name, id):
			has = true
		case r.Current && !r.Offline:
			others++
			current++
		default:
			others++
		}
	}
	want := min(stay, maxReplicas)
	switch {
	case info.Config.Replicas > want:
		conf := info.Config
		conf.Replicas = want
		if _, err := m.js.UpdateStream(ctx, conf); err != nil {
			return fmt.Sprintf("%s can't have %d copies yet: %v", name, want, err), nil
		}
		return fmt.Sprintf("%s is getting %d copies", name, want), nil
	case len(info.Cluster.Replicas)+1 != info.Config.Replicas:
		return name + " is being copied to other control nodes", nil
	case has:
		return name + " is moving to another control node", requestChange(m.conn,
			fmt.Sprintf(server.JSApiStreamEvacuatePeerT, name),
			server.JSApiStreamEvacuatePeerRequest{Peer: id})
	case current < others/2+1:
		return fmt.Sprintf("only %d control nodes have all of %s", current, name), nil
	}
	return "", nil
}

// requestChange sends the leader of the group a request for a change.
func requestChange(conn *nats.Conn, subject string, request any) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return err
		}
	}
	msg, err := conn.Request(subject, body, callTimeout)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	var answer server.ApiResponse
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %w", subject, answer.Error)
	}
	return nil
}

// streamNames returns all streams of the control plane.
func streamNames() []string {
	return []string{purgeStream, "KV_" + leaseBucket, "KV_" + drainBucket, "KV_" + certificateBucket,
		"KV_" + challengeBucket}
}

// leave ends a removed node's work in the group, and waits until ctx ends. It moves the node's data
// aside: if the node comes back, it joins as a new one.
func (c *Control) leave(ctx context.Context) error {
	c.Log.Warn("control plane: this node was removed, and is no longer a control node", "dir", c.Dir)
	c.gate.close() // its clients connect to other control nodes
	c.halt()
	f := folder(c.Dir)
	if err := os.RemoveAll(f.gone()); err != nil {
		return err
	}
	if err := renameSynced(f.store(), f.gone()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// Members asks the control plane for its members.
func (c *Client) Members(ctx context.Context) (*Members, error) {
	out := &Members{}
	err := c.request(ctx, membersSubject, nil, out)
	if errors.Is(err, nats.ErrNoResponders) { // a version without groups of one
		return c.keepers(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("list the members of the control plane: %w", err)
	}
	return out, nil
}

// keepers returns the members that keep the log.
func (c *Client) keepers(ctx context.Context) (*Members, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := c.js.Stream(ctx, purgeStream)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	info := stream.CachedInfo()
	if info.Cluster == nil || info.Cluster.Name == "" {
		return &Members{Current: map[string]bool{c.conn.ConnectedServerName(): true}}, nil
	}
	if info.Cluster.Leader == "" {
		return nil, fmt.Errorf("%w: the log of purges has no leader", ErrUnavailable)
	}
	out := &Members{Grouped: true, Current: map[string]bool{info.Cluster.Leader: true}}
	for _, r := range info.Cluster.Replicas {
		out.Current[r.Name] = r.Current && !r.Offline
	}
	return out, nil
}

// removeEvery is how often RemoveMember asks for progress.
const removeEvery = 300 * time.Millisecond

// RemoveMember removes a control node from the control plane, once other members have everything
// that it has. It waits until that is done or ctx ends. The node may be down. A node that is no
// member is no error.
func (c *Client) RemoveMember(ctx context.Context, node string) error {
	last := errors.New("the control plane does not answer")
	for {
		var r removal
		err := c.request(ctx, removeSubject, []byte(node), &r)
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			last = errors.New("the control nodes run a version that can't do that: first deploy this version to them")
		case err != nil && ctx.Err() == nil:
			last = err
		case err == nil && r.Error != "":
			last = errors.New(r.Error)
		case err == nil && r.Done:
			return nil
		case err == nil:
			last = errors.New(r.Waits)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove %s from the control plane: %w", node, last)
		case <-time.After(removeEvery):
		}
	}
}

// request sends a request to the leader of the group.
func (c *Client) request(ctx context.Context, subject string, body []byte, answer any) error {
	defer c.hold()()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	msg, err := c.conn.RequestWithContext(ctx, subject, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(msg.Data, answer)
}
