package admin

import (
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kaiku-cdn/kaiku/edge/purge"
)

// HealthPath is the path that answers 200 while the node serves. An edge answers it on every host.
const HealthPath = "/.kaiku/health"

// Endpoints returns everything that the listener answers. The OpenAPI document has each of them.
func (s *Server) Endpoints() []purge.Endpoint {
	explain, warm, whatIf := s.serveExplain, s.serveWarm, s.serveWhatIf
	if s.Edge == nil {
		explain, warm, whatIf = failNoEdge, failNoEdge, failNoEdge
	}
	metrics := promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{}).ServeHTTP
	list := []purge.Endpoint{
		{Method: "GET", Path: "/", Public: true, Serve: newPage().serve},
		{Method: "GET", Path: "/v1/session", Serve: s.serveSession},
		{Method: "GET", Path: "/v1/live", Scope: purge.ScopeRead, Serve: s.serveLive},
		{Method: "GET", Path: "/v1/explain/dns", Scope: purge.ScopeRead, Serve: s.serveExplainDNS},
		{Method: "GET", Path: "/v1/explain", Scope: purge.ScopeRead, Serve: explain},
		{Method: "GET", Path: "/v1/what-if", Scope: purge.ScopeRead, Serve: whatIf},
		{Method: "GET", Path: "/v1/status", Scope: purge.ScopeRead, Serve: s.serveStatus},
		{Method: "PUT", Path: "/v1/nodes/{node}/drain", Scope: purge.ScopeDrain, Serve: s.serveDrain},
		{Method: "DELETE", Path: "/v1/nodes/{node}/drain", Scope: purge.ScopeDrain, Serve: s.serveDrain},
		{Method: "GET", Path: "/v1/openapi.json", Serve: serveOpenAPI},
		{Method: "GET", Path: "/metrics", Scope: purge.ScopeRead, Serve: metrics},
		{Method: "GET", Path: HealthPath, Serve: serveHealth},
		{Method: "POST", Path: "/v1/warm", Scope: purge.ScopeWarm, Serve: warm},
		{Method: "GET", Path: "/debug/pprof/{name}", Scope: purge.ScopeDebug, Serve: serveProfile},
	}
	for i := range list {
		list[i].Fail = purge.Fail
	}
	return slices.Concat(list, s.Purger.Tokens.Endpoints(), s.Purger.Endpoints())
}

// handler routes requests to the endpoints, after it has checked their tokens.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	var purgeURL http.Handler
	for _, e := range s.Endpoints() {
		h := s.Purger.Tokens.Authorize(e)
		if e.Method == "PURGE" {
			purgeURL = h
			continue
		}
		path := e.Path
		if path == "/" {
			path = "/{$}" // not what is below it
		}
		mux.Handle(e.Method+" "+path, h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PURGE" || r.Method == http.MethodPost && strings.HasPrefix(r.RequestURI, purge.FastlyURLs) {
			purgeURL.ServeHTTP(w, r) // a mux would redirect a path that contains //
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// failNoEdge refuses a request that only an edge can answer.
func failNoEdge(w http.ResponseWriter, _ *http.Request) {
	purge.Fail(w, http.StatusNotFound, "this node is not an edge: send this request to an edge")
}

func serveHealth(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }

// serveProfile answers with a profile of the process, made by net/http/pprof.
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
