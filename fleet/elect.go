package fleet

import (
	"context"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/nats-io/nats-server/v2/server"
)

// A member of a Raft group that hears no leader waits 4 to 9 s before it asks the others for their
// votes, and once more if these know a later term. After a partition without a majority, purges
// were refused for 7 s (median) after control nodes could reach each other again. So a control node
// that gets a connection to another one makes its groups without a leader ask for votes at once.
//
// NATS has a method for this, but exports no way to reach the groups.

//go:linkname raftNode github.com/nats-io/nats-server/v2/server.(*Server).lookupRaftNode
func raftNode(s *server.Server, group string) server.RaftNode

const (
	// routesEvery is how often a control node checks which other control nodes it is connected to.
	routesEvery = 250 * time.Millisecond
	// electFor is how long after a new connection it looks for groups without a leader, and
	// electEvery how often. NATS adds a random delay of 100 to 800 ms, and over an ocean votes take
	// up to 300 ms.
	electFor   = 15 * time.Second
	electEvery = 1500 * time.Millisecond
)

// elect makes groups elect a leader after each new connection, until ctx ends.
func (c *Control) elect(ctx context.Context) error {
	s := c.nats()
	tick := time.NewTicker(routesEvery)
	defer tick.Stop()
	var last int
	var connected, requested time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		routes := s.NumRoutes()
		if routes > last {
			connected = time.Now()
		}
		last = routes
		if age(connected) > electFor || age(requested) < electEvery || routes+1 <= (1+len(c.Peers))/2 {
			continue
		}
		requested = time.Now()
		if n := campaign(s, "") + campaign(s, server.DEFAULT_GLOBAL_ACCOUNT); n > 0 { // "" is NATS's own account
			c.Log.Info("control plane: no leader: requesting votes from the other control nodes", "groups", n)
		}
	}
}

// campaign makes those groups of an account ask for votes that have lost their leader, and returns
// their number. It leaves alone groups that have had no leader since the process started: their
// disk may be new.
func campaign(s *server.Server, account string) (requested int) {
	all := s.Raftz(&server.RaftzOptions{AccountFilter: account})
	if all == nil {
		return 0
	}
	for _, groups := range *all {
		for name, g := range groups {
			if g.Leader != "" || !g.EverHadLeader {
				continue
			}
			if n := raftNode(s, name); n != nil && n.Campaign() == nil { // otherwise it has become the leader
				requested++
			}
		}
	}
	return requested
}
