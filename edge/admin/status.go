package admin

import (
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Status is the answer to GET /v1/status.
type Status struct {
	Name    string          `json:"name"`
	Version string          `json:"version,omitempty"`
	Started time.Time       `json:"started"`
	Traffic front.Traffic   `json:"traffic"`
	Store   storage.Stats   `json:"store"`
	Origins []origin.Status `json:"origins"` // of each site, and of the tiers of other edges
	// Outages are the sites whose origin kept clients waiting in vain at the last fetch. Their
	// stored responses are served stale at once.
	Outages []cache.Outage `json:"outages,omitempty"`
	// Certificates are the states of the certificates for clients over TLS.
	Certificates []certs.Status `json:"certificates,omitempty"`
	Nodes        []NodeStatus   `json:"nodes,omitempty"`
	// Faults names the files that the node can't use, and what it does instead.
	Faults []string `json:"faults,omitempty"`
}

func (s *Server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	st := Status{Name: s.Purger.Node, Version: s.Version, Started: s.started}
	if s.Edge != nil {
		s.Edge.addStatus(&st, time.Now())
		st.Origins = s.Purger.Sites.Now().Origins()
	}
	if s.Fleet != nil {
		st.Nodes = s.Fleet.Nodes()
	}
	if s.Faults != nil {
		st.Faults = s.Faults()
	}
	purge.WriteJSON(w, http.StatusOK, st)
}

// addStatus adds what an edge reports besides the status of every node.
func (e *Edge) addStatus(st *Status, now time.Time) {
	st.Store, st.Traffic, st.Outages = e.Store.Stats(), e.Front.Metrics.Traffic(), e.Cache.Outages(now)
	st.Traffic.Bytes = e.Front.Sent()
	if e.Certificates != nil {
		st.Certificates = e.Certificates.Status(now)
	}
}

// serveWhatIf answers GET /v1/what-if.
func (s *Server) serveWhatIf(w http.ResponseWriter, _ *http.Request) {
	purge.WriteJSON(w, http.StatusOK, s.Edge.Store.WhatIf())
}
