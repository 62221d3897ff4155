package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// FleetView is what a node knows of the other nodes, and how it drains them.
type FleetView interface {
	purge.Edges
	// Nodes returns the status of each node that has reported one.
	Nodes() []NodeStatus
	// Names returns the names of all nodes, whether they have reported a status or not.
	Names() []string
	// Drain marks a node so that it gets no new clients, or removes the mark if drain is false. The
	// mark survives restarts. Drain fails with purge.ErrNoLog in the same cases as purge.Log.
	Drain(ctx context.Context, node string, drain bool) error
	// Reports returns the last report of each node, and the points of the fleet's history after a
	// time, in milliseconds of Unix time. After an error, it returns what is known.
	Reports(ctx context.Context, since int64) ([]Reported, []Point, error)
	// Location returns the latitude and longitude of a node, or nil.
	Location(node string) *[2]float64
	// NameServers returns the names of the name servers.
	NameServers() []string
}

// NodeStatus is what a node reports of itself.
type NodeStatus struct {
	Node     string   `json:"node"`
	Roles    []string `json:"roles"`
	Region   string   `json:"region,omitempty"`
	Version  string   `json:"version"`
	Address  string   `json:"address,omitempty"`
	Live     bool     `json:"live"`
	Ready    bool     `json:"ready"` // it serves, and trusts what it has stored
	Draining bool     `json:"draining"`
	// Disk is "scarce" or "full" if a control node is short of disk space. It refuses purges if the
	// disk is full.
	Disk    string    `json:"disk,omitempty"`
	Load    float64   `json:"load"`   // share of its capacity, 0 to 1
	Purges  uint64    `json:"purges"` // sequence number of the newest purge applied
	Started time.Time `json:"started"`
	// Behind is how many purges an edge lacks that another one has applied.
	Behind uint64 `json:"behind,omitempty"`
}

// serveDrain answers PUT and DELETE of /v1/nodes/{node}/drain.
func (s *Server) serveDrain(w http.ResponseWriter, r *http.Request) {
	if s.Fleet == nil {
		purge.Fail(w, http.StatusConflict,
			"this fleet has no control plane, so a drain can't reach other nodes: give a node the role control")
		return
	}
	node, drain := r.PathValue("node"), r.Method == http.MethodPut
	if names := s.Fleet.Names(); !slices.Contains(names, node) {
		purge.Fail(w, http.StatusNotFound, fmt.Sprintf("there is no node %q: the nodes are %s", node,
			site.Listed(names)))
		return
	}
	switch err := s.Fleet.Drain(r.Context(), node, drain); {
	case errors.Is(err, purge.ErrNoLog):
		purge.Fail(w, http.StatusServiceUnavailable, err.Error())
		return
	case err != nil:
		purge.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	s.Log.Info("drain", "node", node, "draining", drain)
	purge.WriteJSON(w, http.StatusOK, map[string]any{"node": node, "draining": drain})
}
