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
	// Nodes returns the status of each node that was heard of.
	Nodes() []NodeStatus
	// Names returns the names of all nodes, whether they were heard of or not.
	Names() []string
	// Drain marks a node to get no new clients, or takes the mark back. The mark survives restarts.
	// It fails with purge.ErrNoLog like purge.Log.
	Drain(ctx context.Context, node string, drain bool) error
}

// NodeStatus is what a node reports of itself.
type NodeStatus struct {
	Node     string    `json:"node"`
	Roles    []string  `json:"roles"`
	Region   string    `json:"region,omitempty"`
	Version  string    `json:"version"`
	Address  string    `json:"address,omitempty"`
	Live     bool      `json:"live"`
	Ready    bool      `json:"ready"` // it serves, and trusts what it has
	Draining bool      `json:"draining"`
	Disk     string    `json:"disk,omitempty"` // of a control node: "scarce", or "full", as purges are refused then
	Load     float64   `json:"load"`           // 0 to 1, of its capacity
	Purges   uint64    `json:"purges"`         // sequence of the newest that it applied
	Started  time.Time `json:"started"`
	// Behind is how many purges an edge lacks that another one has applied.
	Behind uint64 `json:"behind,omitempty"`
}

// serveDrain answers PUT and DELETE of /v1/nodes/{node}/drain.
func (s *Server) serveDrain(w http.ResponseWriter, r *http.Request) {
	if s.Fleet == nil {
		purge.Fail(w, http.StatusConflict,
			"this edge has no control plane to tell others of a drain: give nodes the role control")
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
