package fleet

import (
	"context"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/nats-io/nats-server/v2/server"
)

// A member of a Raft group that hears of no leader waits 4 to 9 s until it asks others for their
// votes, and once more if these know of a later term. After a cut that left no majority, purges
// were refused for 7 s (median) once control nodes could reach each other again. So a control node
// that gets a connection to another one has its groups that have no leader ask for votes at once.
//
// NATS has a method for this, and no exported way to the groups.

//go:linkname raftNode github.com/nats-io/nats-server/v2/server.(*Server).lookupRaftNode
func raftNode(s *server.Server, group string) server.RaftNode

const (
	// routesEvery is how often a control node looks which others it has a connection to.
	routesEvery = 250 * time.Millisecond
	// electFor is for how long after a new connection it looks for groups without a leader, and
	// electEvery how often: NATS waits 100 to 800 ms of its own, by chance, and over an ocean votes
	// take up to 300 ms.
	electFor   = 15 * time.Second
	electEvery = 1500 * time.Millisecond
)

// elect has groups elect a leader after each new connection, until ctx ends.
func (c *Control) elect(ctx context.Context) error {
	s := c.nats()
	tick := time.NewTicker(routesEvery)
	defer tick.Stop()
	var last int
	var connected, asked time.Time
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
		if age(connected) > electFor || age(asked) < electEvery || routes+1 <= (1+len(c.Peers))/2 {
			continue
		}
		asked = time.Now()
		if n := campaign(s, "") + campaign(s, server.DEFAULT_GLOBAL_ACCOUNT); n > 0 { // "" is NATS's own
			c.Log.Info("control plane: asks other control nodes for votes, as there is no leader", "groups", n)
		}
	}
}

// campaign has the groups of an account ask for votes that have lost their leader, and returns how
// many. Those that have had none since the process started are left alone: their disk may be a new
// one.
func campaign(s *server.Server, account string) (asked int) {
	all := s.Raftz(&server.RaftzOptions{AccountFilter: account})
	if all == nil {
		return 0
	}
	for _, groups := range *all {
		for name, g := range groups {
			if g.Leader != "" || !g.EverHadLeader {
				continue
			}
			if n := raftNode(s, name); n != nil && n.Campaign() == nil { // else it leads meanwhile
				asked++
			}
		}
	}
	return asked
}
