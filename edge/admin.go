package edge

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Status is the answer to GET /v1/status.
type Status struct {
	Name    string          `json:"name"`
	Version string          `json:"version,omitempty"`
	Started time.Time       `json:"started"`
	Traffic Traffic         `json:"traffic"`
	Store   storage.Stats   `json:"store"`
	Origins []origin.Status `json:"origins"` // of each site, and of the tiers of other edges
	// Outages are the sites whose origin kept clients waiting in vain when it was asked last. What
	// is stored for them is served stale at once.
	Outages []Outage `json:"outages,omitempty"`
	// Certificates are those of the hosts that clients reach over TLS.
	Certificates []certs.Status `json:"certificates,omitempty"`
	Nodes        []NodeStatus   `json:"nodes,omitempty"`
	// Faults are files that the node can't use, with what it does instead.
	Faults []string `json:"faults,omitempty"`
}

// endpoints are all that the admin listener answers. The OpenAPI document has each of them.
func (s *Server) endpoints() []purge.Endpoint {
	return append([]purge.Endpoint{
		{Method: "GET", Path: "/v1/explain", Scope: ScopeRead, Serve: s.needsStore(s.serveExplain), Fail: purge.Fail},
		{Method: "GET", Path: "/v1/status", Scope: ScopeRead, Serve: s.serveStatus, Fail: purge.Fail},
		{Method: "PUT", Path: "/v1/nodes/{node}/drain", Scope: ScopeDrain, Serve: s.serveDrain, Fail: purge.Fail},
		{Method: "DELETE", Path: "/v1/nodes/{node}/drain", Scope: ScopeDrain, Serve: s.serveDrain, Fail: purge.Fail},
		{Method: "GET", Path: "/v1/openapi.json", Scope: "", Serve: serveOpenAPI, Fail: purge.Fail},
		{Method: "GET", Path: "/metrics", Scope: ScopeRead,
			Serve: promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{}).ServeHTTP, Fail: purge.Fail},
		{Method: "GET", Path: healthPath, Scope: "",
			Serve: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }, Fail: purge.Fail},
		{Method: "POST", Path: "/v1/warm", Scope: ScopeWarm, Serve: s.needsStore(s.serveWarm), Fail: purge.Fail},
		{Method: "GET", Path: "/debug/pprof/{name}", Scope: ScopeDebug, Serve: serveProfile, Fail: purge.Fail},
	}, s.purger.Endpoints()...)
}

// adminHandler is the API of the admin listener.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	var purgeURL http.Handler
	for _, e := range s.endpoints() {
		h := s.tokens.Authorize(e)
		if e.Method == "PURGE" {
			purgeURL = h
			continue
		}
		mux.Handle(e.Method+" "+e.Path, h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PURGE" || r.Method == http.MethodPost && strings.HasPrefix(r.RequestURI, purge.FastlyURLs) {
			purgeURL.ServeHTTP(w, r) // a mux redirects a path with // to another
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// serveProfile answers with a profile of the process, as net/http/pprof has them.
func serveProfile(w http.ResponseWriter, r *http.Request) {
	switch r.PathValue("name") {
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Index(w, r)
	}
}

func (s *Server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	st := Status{Name: s.Name, Version: s.Version, Started: s.started}
	if s.Store != nil {
		st.Store, st.Origins, st.Traffic = s.Store.Stats(), s.origins(), s.front.Metrics.Traffic()
		st.Traffic.Bytes = s.front.Sent()
		st.Outages = s.cache.Outages(time.Now())
	}
	if s.HTTPS != "" {
		st.Certificates = s.Certificates.Status(time.Now())
	}
	if s.Fleet != nil {
		st.Nodes = s.Fleet.Nodes()
	}
	if s.Faults != nil {
		st.Faults = s.Faults()
	}
	purge.WriteJSON(w, http.StatusOK, st)
}

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
	case errors.Is(err, ErrNoPurgeLog):
		purge.Fail(w, http.StatusServiceUnavailable, err.Error())
		return
	case err != nil:
		purge.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	s.Log.Info("drain", "node", node, "draining", drain)
	purge.WriteJSON(w, http.StatusOK, map[string]any{"node": node, "draining": drain})
}

// IsLoopback reports whether a listening address can only be reached from this machine.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
