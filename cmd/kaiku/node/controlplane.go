package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/geodns"
	"github.com/kaiku-cdn/kaiku/storage"
)

// link is what ties a node to the others.
type controlPlane struct {
	client   *fleet.Client
	registry *fleet.Registry
	follower *fleet.Follower // of an edge
	// challenges are what a name server answers to certificate authorities.
	challenges *fleet.ChallengeFollower
	more       []PartFunc     // what else goes on as long as the link does
	load       *load          // of an edge
	control    *fleet.Control // of a control node
	started    time.Time
	names      []string    // of all nodes of the fleet file
	allowed    []string    // the only sites that the node may purge; none is no limit
	sites      *site.Table // those of the node's fleet file
	secure     func() bool // whether an edge has certificates for all its hosts
}

// nearestFirst are the addresses of the control nodes, the nearest to a node first: what it is told
// of purges comes by that.
func nearestFirst(f *config.Fleet, n *config.Node, addrs map[string]string) []string {
	away := func(name string) float64 {
		from, to := n.Location, f.Node(name).Location
		if from == nil || to == nil {
			return math.Inf(1)
		}
		return geodns.Place{Lat: from[0], Lon: from[1]}.Distance(geodns.Place{Lat: to[0], Lon: to[1]})
	}
	names := slices.SortedFunc(maps.Keys(addrs),
		func(a, b string) int { return cmp.Or(cmp.Compare(away(a), away(b)), cmp.Compare(a, b)) })
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = addrs[name]
	}
	return out
}

// newControlPlane connects a node to the control plane; nil if there is none.
func newControlPlane(f *config.Fleet, n *config.Node, key *fleet.Key, log *slog.Logger) (*controlPlane, error) {
	clients, _ := f.ControlAddresses()
	if len(clients) == 0 || key == nil {
		return nil, nil
	}
	conf, err := key.TLS(n.Name, n.Roles...)
	if err != nil {
		return nil, err
	}
	l := &controlPlane{client: &fleet.Client{Node: n.Name, TLS: conf, Log: log}, started: time.Now(),
		names: f.NodeNames()}
	l.allowed = allowedSites(f, n, l.client, log)
	l.client.Servers = nearestFirst(f, n, clients)
	lease := fleet.Lease{Version: Version(), Roles: n.Roles, Region: n.Region, Started: l.started, Ready: true}
	if len(n.Addresses) > 0 {
		lease.Address = n.Addresses[0].String()
	}
	l.registry = &fleet.Registry{Client: l.client, OnDemand: !n.Has(config.RoleGeoDNS) && !n.Has(config.RoleControl),
		Self: func() fleet.Lease {
			now := lease
			if l.follower != nil {
				now.Ready, now.Applied, now.Unproven = l.inTouch(), l.follower.Applied(), !l.follower.Proven()
				now.Load = l.load.now(time.Now())
				now.Secure, now.Sites = l.secure(), l.sites.Now().Sum()
			}
			if l.control != nil {
				now.Disk = l.control.Room().State()
			}
			if l.challenges != nil {
				now.Challenges = l.challenges.Applied()
			}
			return now
		}}
	for i := range f.Nodes {
		if f.Nodes[i].Has(config.RoleEdge) {
			l.registry.Edges = append(l.registry.Edges, f.Nodes[i].Name)
		}
	}
	return l, nil
}

// follow makes an edge follow the log of purges.
func (l *controlPlane) follow(e *Edge, conf config.Edge) {
	at := e.Store.Position()
	l.load = &load{sent: e.Sent, capacity: float64(conf.Capacity)}
	l.secure, l.sites = e.Secure, &e.Sites
	l.registry.MaxDisconnected = time.Duration(conf.MaxDisconnected)
	l.follower = &fleet.Follower{Client: l.client, Start: fleet.Position(at),
		MaxDisconnected: time.Duration(conf.MaxDisconnected),
		Apply: func(purges []fleet.Logged, after fleet.Position) error {
			requests := make([]purge.Logged, len(purges))
			for i, p := range purges {
				requests[i] = purge.ParseLogged(p.Site, p.Purge)
			}
			return e.Apply(requests, storage.Position(after))
		},
		Lost: func(now fleet.Position) error { return e.Suspect(storage.Position(now)) },
		Forgot: func(ctx context.Context, id string) error {
			_, err := l.client.Append(ctx, id, "", purge.LostPurges)
			return err
		},
		Changed: l.registry.Renew}
	if len(l.allowed) > 0 {
		l.follower.Forgot = nil // it may not make such a purge
	}
	e.Purges, e.Fleet = purgeLog{l}, others{l}
}

// Listen connects; the control plane need not be there yet.
func (l *controlPlane) Listen(context.Context) error { return l.client.Dial() }

// Serve follows the log and keeps the lease until ctx ends.
func (l *controlPlane) Serve(ctx context.Context) error {
	defer l.client.Close()
	parts := []Part{PartFunc(l.registry.Serve)}
	if l.follower != nil {
		parts = append(parts, PartFunc(l.follower.Serve))
	}
	for _, p := range l.more {
		parts = append(parts, p)
	}
	return serveParts(ctx, parts...)
}

// answerChallenges has a name server answer the challenges of the fleet's orders of certificates.
func (l *controlPlane) answerChallenges(s *geodns.Server) {
	l.challenges = &fleet.ChallengeFollower{Client: l.client, Set: s.SetChallenges, Changed: l.registry.Renew}
	l.more = append(l.more, l.challenges.Serve)
}

// reports is what name servers hear of edges.
func (l *controlPlane) reports() map[string]geodns.Report {
	out := map[string]geodns.Report{}
	for _, n := range l.registry.Nodes() {
		out[n.Node] = geodns.Report{Draining: n.Draining, Stale: !n.Live || !n.Ready, Load: n.Load,
			Plain: slices.Contains(n.Roles, config.RoleEdge) && !n.Secure}
	}
	return out
}

// purgeLog is the log as an edge sees it.
type purgeLog struct{ *controlPlane }

// Append appends a purge, a large one as several entries. Its sequence is that of the last.
func (l purgeLog) Append(ctx context.Context, site string, p purge.Request) (seq uint64, err error) {
	if len(l.allowed) == 0 {
		site = "" // edges with another fleet file may have the host in another site, and are not to refuse it
	} else if err := mayPurge(site, l.client.Node, l.allowed, l.sites.Now().Sum(), l.registry.Nodes()); err != nil {
		return 0, fmt.Errorf("%w: %w", purge.ErrNotAllowed, err)
	}
	for _, entry := range p.Split() {
		if seq, err = l.client.Append(ctx, l.entryID(), site, entry); err != nil {
			return 0, unavailable(err) // it may be tried again: what is in the log already harms nobody
		}
	}
	return seq, nil
}

// allowedSites are the only sites that a node may purge; none is no limit.
func allowedSites(f *config.Fleet, n *config.Node, c *fleet.Client, log *slog.Logger) []string {
	allowed := c.Sites()
	for _, name := range allowed {
		if !slices.ContainsFunc(f.Sites, func(s config.Site) bool { return s.Name == name }) {
			log.Error("the credential of this node is for a site that the fleet file does not have, as when it was renamed: make one with kaiku credential", "site", name)
		}
	}
	if len(allowed) == 0 {
		return n.Sites
	}
	return allowed
}

// mayPurge returns an error if a node may not purge a site, or if edges would not take a purge for
// one of that site, as they have other sites: sum tells the node's own.
func mayPurge(site, node string, allowed []string, sum string, nodes []fleet.Lease) error {
	if site == "" {
		return fmt.Errorf("node %s may purge URLs, prefixes and hosts of its sites alone: %s", node,
			strings.Join(allowed, ", "))
	}
	if !slices.Contains(allowed, site) {
		return fmt.Errorf("it is of site %s, and node %s may purge %s alone: if the site was renamed, make the node's credential again with kaiku credential",
			site, node, strings.Join(allowed, ", "))
	}
	var other []string
	for _, n := range nodes {
		if n.Live && n.Sites != "" && n.Sites != sum {
			other = append(other, n.Node)
		}
	}
	if len(other) > 0 {
		return fmt.Errorf("%s may not take it for one of site %s, as the sites of their fleet files are not those of node %s: bring the same fleet file to all, as kaiku deploy does",
			strings.Join(other, ", "), site, node)
	}
	return nil
}

// entryID is the ID of a purge to be appended. That of an edge tells what it knows the log to have
// before it.
func (l *controlPlane) entryID() string {
	if l.follower == nil {
		return rand.Text()
	}
	return l.follower.EntryID(rand.Text())
}

// unavailable makes what the fleet says what an edge knows.
func unavailable(err error) error {
	if errors.Is(err, fleet.ErrUnavailable) {
		return fmt.Errorf("%w: %w", purge.ErrNoLog, err)
	}
	return err
}

// InTouch reports whether the edge may trust what it has; other nodes have nothing.
func (l purgeLog) InTouch() bool { return l.inTouch() }

func (l *controlPlane) inTouch() bool {
	return l.follower == nil || l.follower.InTouch() && !l.registry.Refused()
}

// CutOff reports whether an edge hears of nobody.
func (l purgeLog) CutOff() bool { return l.follower != nil && l.follower.CutOff() }

// others are the other nodes as an edge sees them.
type others struct{ *controlPlane }

// Progress tells how far each edge is with a purge.
func (l others) Progress(ctx context.Context, seq uint64, wait bool) []purge.Progress {
	var all []fleet.Progress
	if wait {
		all = l.registry.Wait(ctx, seq)
	} else {
		all = l.registry.Progress(ctx, seq)
	}
	out := make([]purge.Progress, len(all))
	for i, p := range all {
		out[i] = purge.Progress{Node: p.Node, Applied: p.Applied, Live: p.Live, Seconds: p.Took.Seconds()}
	}
	return out
}

// Nodes are those that were heard of.
func (l others) Nodes() []admin.NodeStatus {
	all := l.registry.Nodes()
	var newest fleet.Position // that an edge has applied
	for _, n := range all {
		if a := n.Applied; a.Log > newest.Log || a.Log == newest.Log && a.Seq > newest.Seq {
			newest = a
		}
	}
	out := make([]admin.NodeStatus, len(all))
	for i, n := range all {
		out[i] = admin.NodeStatus{Node: n.Node, Roles: n.Roles, Region: n.Region, Version: n.Version,
			Address: n.Address,
			Live:    n.Live, Ready: n.Ready,
			Draining: n.Draining, Disk: n.Disk, Load: n.Load, Purges: n.Applied.Seq, Started: n.Started}
		switch {
		case !slices.Contains(n.Roles, config.RoleEdge): // it applies none
		case n.Applied.Log != newest.Log:
			out[i].Behind = newest.Seq
		default:
			out[i].Behind = newest.Seq - n.Applied.Seq
		}
	}
	return out
}

// Names are those of the fleet file, and of nodes that were heard of, as another node may have a
// newer file.
func (l others) Names() []string {
	names := slices.Clone(l.names)
	for _, n := range l.registry.Nodes() {
		names = append(names, n.Node)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Drain marks a node.
func (l others) Drain(ctx context.Context, node string, drain bool) error {
	return unavailable(l.client.Drain(ctx, node, drain))
}

// load measures what part of its capacity an edge sends. It is for one goroutine.
type load struct {
	sent     func() uint64
	capacity float64 // bytes a second; 0 is unknown, and then there is no load
	at       time.Time
	before   uint64
	mean     float64
}

// loadTime is the time that the mean of a load is over.
const loadTime = 10 * time.Second

// now is the load, 0 to 1.
func (l *load) now(at time.Time) float64 {
	sent := l.sent()
	if passed := at.Sub(l.at); !l.at.IsZero() && passed > 0 && l.capacity > 0 {
		rate := float64(sent-l.before) / passed.Seconds() / l.capacity
		l.mean += (rate - l.mean) * min(1, float64(passed)/float64(loadTime))
	}
	l.at, l.before = at, sent
	return min(1, l.mean)
}
