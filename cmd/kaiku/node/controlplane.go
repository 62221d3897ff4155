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

// controlPlane is a node's side of the control plane: its client, its lease, and what it follows.
type controlPlane struct {
	client   *fleet.Client
	registry *fleet.Registry
	follower *fleet.Follower // of an edge
	// challenges are the challenges of certificate authorities that a name server answers.
	challenges *fleet.ChallengeFollower
	more       []PartFunc     // runs for as long as the client
	load       *load          // of an edge
	control    *fleet.Control // of a control node
	started    time.Time
	names      []string // of all nodes of the fleet file
	allReports *fleet.Reports
	places     map[string]*[2]float64 // of the fleet file, by node
	// nameServers are those of the fleet file.
	nameServers []string
	allowed     []string    // the only sites that the node may purge; none means no limit
	sites       *site.Table // those of the node's fleet file
	secure      func() bool // whether an edge has certificates for all its hosts
}

// nearestFirst returns the addresses of the control nodes, the one nearest to a node first. The
// node gets purges through it.
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

// newControlPlane returns the client of the control plane, or nil if the fleet has none.
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
	l.allowed, l.allReports = allowedSites(f, n, l.client, log), &fleet.Reports{Client: l.client}
	l.setPlaces(f)
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
		l.follower.Forgot = nil // the credential doesn't allow such a purge
	}
	e.Purges, e.Fleet = purgeLog{l}, fleetView{l}
}

// Listen starts to connect. The control plane may still be down.
func (l *controlPlane) Listen(context.Context) error { return l.client.Dial() }

// Serve follows the log and renews the lease until ctx ends.
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

// answerChallenges makes a name server answer the challenges of the fleet's certificate orders.
func (l *controlPlane) answerChallenges(s *geodns.Server) {
	l.challenges = &fleet.ChallengeFollower{Client: l.client, Set: s.SetChallenges, Changed: l.registry.Renew}
	l.more = append(l.more, l.challenges.Serve)
}

// reports returns what name servers know of edges.
func (l *controlPlane) reports() map[string]geodns.Report {
	out := map[string]geodns.Report{}
	for _, n := range l.registry.Nodes() {
		out[n.Node] = geodns.Report{Draining: n.Draining, Stale: !n.Live || !n.Ready, Load: n.Load,
			Plain: slices.Contains(n.Roles, config.RoleEdge) && !n.Secure}
	}
	return out
}

// purgeLog is the purge.Log of a node.
type purgeLog struct{ *controlPlane }

// Append appends a purge, or several entries if it is large. It returns the sequence of the last
// one.
func (l purgeLog) Append(ctx context.Context, site string, p purge.Request) (seq uint64, err error) {
	if len(l.allowed) == 0 {
		site = "" // edges with another fleet file may have the host in another site, and must not refuse the purge
	} else if err := mayPurge(site, l.client.Node, l.allowed, l.sites.Now().Sum(), l.registry.Nodes()); err != nil {
		return 0, fmt.Errorf("%w: %w", purge.ErrNotAllowed, err)
	}
	for _, entry := range p.Split() {
		if seq, err = l.client.Append(ctx, l.entryID(), site, entry); err != nil {
			// the purge can be repeated: the entries that are already in the log do no harm
			return 0, unavailable(err)
		}
	}
	return seq, nil
}

// allowedSites returns the only sites that a node may purge; none means no limit.
func allowedSites(f *config.Fleet, n *config.Node, c *fleet.Client, log *slog.Logger) []string {
	allowed := c.Sites()
	for _, name := range allowed {
		if !slices.ContainsFunc(f.Sites, func(s config.Site) bool { return s.Name == name }) {
			log.Error("the credential of this node is for a site that is not in the fleet file; if the site was renamed, make the credential again with kaiku credential", "site", name)
		}
	}
	if len(allowed) == 0 {
		return n.Sites
	}
	return allowed
}

// mayPurge returns an error if a node may not purge a site, or if edges would refuse a purge for
// that site, because they have other sites. sum identifies the node's own sites.
func mayPurge(site, node string, allowed []string, sum string, nodes []fleet.Lease) error {
	if site == "" {
		return fmt.Errorf("node %s may purge only URLs, prefixes and hosts of its sites: %s", node,
			strings.Join(allowed, ", "))
	}
	if !slices.Contains(allowed, site) {
		return fmt.Errorf("it belongs to site %s, but node %s may purge only %s: if the site was renamed, make the node's credential again with kaiku credential",
			site, node, strings.Join(allowed, ", "))
	}
	var other []string
	for _, n := range nodes {
		if n.Live && n.Sites != "" && n.Sites != sum {
			other = append(other, n.Node)
		}
	}
	if len(other) > 0 {
		return fmt.Errorf("%s may not treat it as a purge of site %s, because their fleet files have other sites than that of node %s: deploy the same fleet file to all nodes",
			strings.Join(other, ", "), site, node)
	}
	return nil
}

// entryID returns the ID of a purge to append. That of an edge refers to the end of the log that
// the edge knows.
func (l *controlPlane) entryID() string {
	if l.follower == nil {
		return rand.Text()
	}
	return l.follower.EntryID(rand.Text())
}

// unavailable turns an error of fleet into one of the purge package.
func unavailable(err error) error {
	if errors.Is(err, fleet.ErrUnavailable) {
		return fmt.Errorf("%w: %w", purge.ErrNoLog, err)
	}
	return err
}

// InTouch reports whether the edge may trust its store. Other nodes have none.
func (l purgeLog) InTouch() bool { return l.inTouch() }

func (l *controlPlane) inTouch() bool {
	return l.follower == nil || l.follower.InTouch() && !l.registry.Refused()
}

// CutOff reports whether an edge gets no sign of life from control nodes.
func (l purgeLog) CutOff() bool { return l.follower != nil && l.follower.CutOff() }

// fleetView is the admin.FleetView of a node: what it knows of the other nodes.
type fleetView struct{ *controlPlane }

// Progress returns whether each edge has applied a purge.
func (l fleetView) Progress(ctx context.Context, seq uint64, wait bool) []purge.Progress {
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

// Nodes returns the nodes that have a lease.
func (l fleetView) Nodes() []admin.NodeStatus {
	all := l.registry.Nodes()
	var newest fleet.Position // the newest purge that an edge has applied
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
		case !slices.Contains(n.Roles, config.RoleEdge): // it applies no purges
		case n.Applied.Log != newest.Log:
			out[i].Behind = newest.Seq
		default:
			out[i].Behind = newest.Seq - n.Applied.Seq
		}
	}
	return out
}

// Names returns the nodes of the fleet file and those with a lease: another node may have a newer
// file.
func (l fleetView) Names() []string {
	names := slices.Clone(l.names)
	for _, n := range l.registry.Nodes() {
		names = append(names, n.Node)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Drain sets or removes the drain mark of a node.
func (l fleetView) Drain(ctx context.Context, node string, drain bool) error {
	return unavailable(l.client.Drain(ctx, node, drain))
}

// load measures what part of its capacity an edge sends. It is for one goroutine.
type load struct {
	sent     func() uint64
	capacity float64 // bytes a second; 0 means unknown, and the load is 0
	at       time.Time
	before   uint64
	mean     float64
}

// loadTime is the time over which the load is averaged.
const loadTime = 10 * time.Second

// now returns the load, 0 to 1.
func (l *load) now(at time.Time) float64 {
	sent := l.sent()
	if passed := at.Sub(l.at); !l.at.IsZero() && passed > 0 && l.capacity > 0 {
		rate := float64(sent-l.before) / passed.Seconds() / l.capacity
		l.mean += (rate - l.mean) * min(1, float64(passed)/float64(loadTime))
	}
	l.at, l.before = at, sent
	return min(1, l.mean)
}
