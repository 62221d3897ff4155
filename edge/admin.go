package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// maxPurgeBody bounds the JSON of a purge, in bytes.
const maxPurgeBody = 4 << 20

// PurgeRequest is the body of POST /v1/purge. URLs and prefixes are absolute; their scheme and port
// don't matter.
type PurgeRequest struct {
	URLs     []string `json:"urls,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	Prefixes []string `json:"prefixes,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`
	All      bool     `json:"all,omitempty"`
	Soft     bool     `json:"soft,omitempty"` // make stale instead of gone
}

// PurgeResponse is the answer to POST /v1/purge.
type PurgeResponse struct {
	Sequence uint64 `json:"sequence"`
	// Edges are how far all edges are, if that was waited for (?wait=all).
	Edges []Progress `json:"edges,omitempty"`
}

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

// Traffic is what the edge answered for its sites since it started, to clients and to other edges.
type Traffic struct {
	Requests uint64 `json:"requests"`
	Hits     uint64 `json:"hits"`   // answered with what was stored, fresh or stale
	Errors   uint64 `json:"errors"` // answered with 500 to 599
	Bytes    uint64 `json:"bytes"`  // of bodies
}

// errorResponse is the body of every error of the admin API.
type errorResponse struct {
	Error string `json:"error"`
}

// purge turns the request into what the store knows. known is what that knows a target by.
func (p PurgeRequest) purge(known func(httpcache.Target) string) (storage.Purge, error) {
	out := storage.Purge{All: p.All, Soft: p.Soft}
	for _, list := range []struct {
		from []string
		to   *[]string
	}{{p.URLs, &out.URLs}, {p.Prefixes, &out.Prefixes}} {
		for _, raw := range list.from {
			t, err := httpcache.ParseURL(raw)
			if err == nil && !utf8.ValidString(raw) {
				err = fmt.Errorf("%q is not UTF-8, and can't be named: purge by prefix, host or tag", raw)
			}
			if err != nil {
				return out, err
			}
			*list.to = append(*list.to, known(t))
		}
	}
	for _, t := range p.Tags {
		if t == "" || strings.ContainsRune(t, 0) { // with NUL it would be one of the edge's own
			return out, fmt.Errorf("%q is no tag", t)
		}
		out.Tags = append(out.Tags, t)
	}
	for _, h := range p.Hosts {
		if h == "" || strings.ContainsAny(h, "/ ") {
			return out, fmt.Errorf("purge host %q: want a host name", h)
		}
		out.Tags = append(out.Tags, hostTag(canonicalHost(h)))
	}
	for _, v := range slices.Concat(out.URLs, out.Prefixes, out.Tags) {
		if len(v) > storage.MaxPurgeValue {
			return out, fmt.Errorf("purge %.40q…: it has %d bytes, want at most %d", v, len(v), storage.MaxPurgeValue)
		}
	}
	if len(out.URLs)+len(out.Prefixes)+len(out.Tags) == 0 && !out.All {
		return out, errors.New("nothing to purge: give urls, tags, prefixes, hosts or all")
	}
	return out, nil
}

// known is what the store knows a target by: without what its site ignores.
func (s *Server) known(t httpcache.Target) string {
	if site, _ := s.sites.Load().find(t.Host); site != nil {
		t = site.reduce(t)
	}
	return t.URL()
}

// route is one thing that the admin listener answers.
type route struct {
	method, path string
	scope        string // that a token needs; "" means any
	serve        http.HandlerFunc
	fail         failure // the form of errors that its clients read
}

// failure writes an error in the form of one API.
type failure func(w http.ResponseWriter, status int, text string)

// routes are all that the admin listener answers. The OpenAPI document has each of them.
func (s *Server) routes() []route {
	return []route{
		{"POST", "/v1/purge", ScopePurge, s.servePurge, failNative},
		{"GET", "/v1/purges/{sequence}", ScopeRead, s.servePurgeProgress, failNative},
		{"GET", "/v1/explain", ScopeRead, s.needsStore(s.serveExplain), failNative},
		{"GET", "/v1/status", ScopeRead, s.serveStatus, failNative},
		{"PUT", "/v1/nodes/{node}/drain", ScopeDrain, s.serveDrain, failNative},
		{"DELETE", "/v1/nodes/{node}/drain", ScopeDrain, s.serveDrain, failNative},
		{"GET", "/v1/openapi.json", "", serveOpenAPI, failNative},
		{"GET", "/metrics", ScopeRead, promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{}).ServeHTTP, failNative},
		{"GET", healthPath, "", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }, failNative},
		{"POST", "/v1/warm", ScopeWarm, s.needsStore(s.serveWarm), failNative},
		{"GET", "/debug/pprof/{name}", ScopeDebug, serveProfile, failNative},
		{"POST", "/service/{id}/purge/{key}", ScopePurge, s.serveFastlyKey, failFastly},
		{"POST", "/service/{id}/purge", ScopePurge, s.serveFastlyKeys, failFastly},
		{"POST", "/service/{id}/purge_all", ScopePurge, s.serveFastlyAll, failFastly},
		{"POST", fastlyURLs + "{url}", ScopePurge, s.serveFastlyURL, failFastly},
		{"PURGE", "/", ScopePurge, s.serveFastlyURL, failFastly},
		{"POST", "/client/v4/zones/{zone}/purge_cache", ScopePurge, s.serveCloudflarePurge, failCloudflare},
	}
}

// adminHandler is the API of the admin listener.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	var purgeURL http.Handler
	for _, r := range s.routes() {
		h := s.authorize(r)
		if r.method == "PURGE" {
			purgeURL = h
			continue
		}
		mux.Handle(r.method+" "+r.path, h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PURGE" || r.Method == http.MethodPost && strings.HasPrefix(r.RequestURI, fastlyURLs) {
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

// failNative writes an error as the API of Kaiku's own has it.
func failNative(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, errorResponse{text})
}

func (s *Server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	st := Status{Name: s.Name, Version: s.Version, Started: s.started}
	if s.Store != nil {
		st.Store, st.Origins, st.Traffic = s.Store.Stats(), s.origins(), s.metrics.traffic()
		st.Traffic.Bytes = s.Sent()
		st.Outages = s.listOutages(time.Now())
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
	writeJSON(w, http.StatusOK, st)
}

func (s *Server) servePurge(w http.ResponseWriter, r *http.Request) {
	// A browser can't send this type to another site without asking first, so that no web page
	// purges through its visitor.
	if !isJSON(r.Header) {
		writeJSON(w, http.StatusUnsupportedMediaType, errorResponse{"want Content-Type: application/json"})
		return
	}
	var req PurgeRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPurgeBody))
	d.DisallowUnknownFields()
	err := d.Decode(&req)
	if _, more := d.Token(); err == nil && more != io.EOF {
		err = errors.New("more than one JSON value")
	}
	if err != nil {
		writeJSON(w, http.StatusBadRequest, errorResponse{fmt.Sprintf("read the purge: %v", err)})
		return
	}
	wait := r.URL.Query().Get("wait") == "all"
	if wait {
		end, err := s.purgeWaits.begin(grantOf(r.Context()))
		if err != nil {
			failPurge(w, failNative, http.StatusServiceUnavailable, err)
			return
		}
		defer end()
	}
	seq, status, err := s.purgeFor(r.Context(), req)
	if err != nil {
		failPurge(w, failNative, status, err)
		return
	}
	resp := PurgeResponse{Sequence: seq}
	if wait {
		limit, err := time.ParseDuration(r.URL.Query().Get("limit"))
		if err != nil || limit <= 0 || limit > maxWait {
			limit = defaultWait
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		resp.Edges = s.progress(ctx, seq, true)
	}
	writeJSON(w, http.StatusOK, resp)
}

// purgeFor purges for the client that a request's context knows. status is that of the answer.
func (s *Server) purgeFor(ctx context.Context, req PurgeRequest) (seq uint64, status int, err error) {
	if err := s.mayPurge(grantOf(ctx), req); err != nil {
		return 0, http.StatusForbidden, err
	}
	seq, err = s.purge(ctx, req)
	switch {
	case errors.As(err, new(*requestError)):
		return 0, http.StatusBadRequest, err
	case errors.As(err, new(*unknownHost)):
		return 0, http.StatusNotFound, err
	case errors.Is(err, ErrNoPurgeLog):
		return 0, http.StatusServiceUnavailable, err
	case errors.Is(err, ErrNotAllowed):
		return 0, http.StatusForbidden, err
	case err != nil:
		s.Log.Error("purge failed", "error", err)
		return 0, http.StatusInternalServerError, err
	}
	s.Log.Info("purged", "sequence", seq, "urls", len(req.URLs), "tags", len(req.Tags), "prefixes", len(req.Prefixes),
		"hosts", len(req.Hosts), "all", req.All, "soft", req.Soft)
	return seq, http.StatusOK, nil
}

// failPurge answers that a purge was not done.
func failPurge(w http.ResponseWriter, fail failure, status int, err error) {
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	fail(w, status, err.Error())
}

// How long ?wait=all waits: the query's limit, or defaultWait.
const (
	defaultWait = 10 * time.Second
	maxWait     = 5 * time.Minute
)

// progress tells how far the edges are with a purge; without a fleet this one is all there is.
func (s *Server) progress(ctx context.Context, seq uint64, wait bool) []Progress {
	if s.Fleet == nil && s.Store == nil {
		return nil
	}
	if s.Fleet == nil {
		return []Progress{{Node: s.Name, Applied: s.Store.Epoch() >= seq, Live: true}}
	}
	return s.Fleet.Progress(ctx, seq, wait)
}

func (s *Server) servePurgeProgress(w http.ResponseWriter, r *http.Request) {
	seq, err := strconv.ParseUint(r.PathValue("sequence"), 10, 64)
	if err != nil || seq == 0 {
		writeJSON(w, http.StatusBadRequest, errorResponse{"want the sequence of a purge, as POST /v1/purge gave it"})
		return
	}
	writeJSON(w, http.StatusOK, PurgeResponse{Sequence: seq, Edges: s.progress(r.Context(), seq, false)})
}

func (s *Server) serveDrain(w http.ResponseWriter, r *http.Request) {
	if s.Fleet == nil {
		writeJSON(w, http.StatusConflict, errorResponse{"this edge has no control plane to tell others of a drain: give nodes the role control"})
		return
	}
	node, drain := r.PathValue("node"), r.Method == http.MethodPut
	if names := s.Fleet.Names(); !slices.Contains(names, node) {
		writeJSON(w, http.StatusNotFound, errorResponse{fmt.Sprintf("there is no node %q: the nodes are %s", node, listed(names))})
		return
	}
	switch err := s.Fleet.Drain(r.Context(), node, drain); {
	case errors.Is(err, ErrNoPurgeLog):
		writeJSON(w, http.StatusServiceUnavailable, errorResponse{err.Error()})
		return
	case err != nil:
		writeJSON(w, http.StatusBadRequest, errorResponse{err.Error()})
		return
	}
	s.Log.Info("drain", "node", node, "draining", drain)
	writeJSON(w, http.StatusOK, map[string]any{"node": node, "draining": drain})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone if it fails
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
