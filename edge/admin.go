package edge

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

var errNotAbsolute = errors.New("want an absolute URL, http:// or https:// and a host")

// maxPurgeBody bounds the JSON of a purge, in bytes.
const maxPurgeBody = 4 << 20

// PurgeRequest is the body of POST /v1/purge. URLs and prefixes are absolute; their scheme and port don't matter.
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
}

// Status is the answer to GET /v1/status.
type Status struct {
	Name    string          `json:"name"`
	Store   storage.Stats   `json:"store"`
	Origins []origin.Status `json:"origins"` // of each site, and of the tiers of other edges
}

// errorResponse is the body of every error of the admin API.
type errorResponse struct {
	Error string `json:"error"`
}

// purge turns the request into what the store knows. known leaves out of a URL what its site ignores.
func (p PurgeRequest) purge(known func(url string) string) (storage.Purge, error) {
	out := storage.Purge{All: p.All, Soft: p.Soft}
	for _, list := range []struct {
		from []string
		to   *[]string
	}{{p.URLs, &out.URLs}, {p.Prefixes, &out.Prefixes}} {
		for _, raw := range list.from {
			u, err := URLOf(raw)
			if err != nil {
				return out, fmt.Errorf("purge %q: %w", raw, err)
			}
			*list.to = append(*list.to, known(u))
		}
	}
	for _, t := range p.Tags {
		if t == "" {
			return out, errors.New("purge: an empty tag")
		}
		out.Tags = append(out.Tags, t)
	}
	for _, h := range p.Hosts {
		if h == "" || strings.ContainsAny(h, "/ ") {
			return out, fmt.Errorf("purge host %q: want a host name", h)
		}
		out.Tags = append(out.Tags, hostTag(canonicalHost(h)))
	}
	if len(out.URLs)+len(out.Prefixes)+len(out.Tags) == 0 && !out.All {
		return out, errors.New("purge: nothing named; give urls, tags, prefixes, hosts or all")
	}
	return out, nil
}

// known is what the store knows a URL by.
func (s *Server) known(url string) string {
	host, target, _ := strings.Cut(url, "/")
	site, _ := s.sites.Load().find(host)
	if site == nil {
		return url
	}
	return site.url(host, "/"+target)
}

// adminHandler is the API of the admin listener.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/purge", s.servePurge)
	mux.HandleFunc("GET /v1/explain", s.serveExplain)
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, Status{Name: s.Name, Store: s.Store.Stats(), Origins: s.origins()})
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET "+healthPath, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	return s.authorize(mux)
}

// authorize asks for the bearer token, if the edge has one.
func (s *Server) authorize(next http.Handler) http.Handler {
	if s.Token == "" {
		return next
	}
	want := sha256.Sum256([]byte(s.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(token)))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="kaiku"`)
			writeJSON(w, http.StatusUnauthorized, errorResponse{"want Authorization: Bearer with the admin token"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) servePurge(w http.ResponseWriter, r *http.Request) {
	// A browser can't send this type to another site without asking first, so that no web page purges through its visitor.
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
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
	seq, err := s.purge(r.Context(), req)
	switch {
	case errors.As(err, new(*requestError)):
		writeJSON(w, http.StatusBadRequest, errorResponse{err.Error()})
		return
	case errors.Is(err, ErrNoPurgeLog):
		w.Header().Set("Retry-After", "1")
		writeJSON(w, http.StatusServiceUnavailable, errorResponse{err.Error()})
		return
	case err != nil:
		s.Log.Error("purge failed", "error", err)
		writeJSON(w, http.StatusInternalServerError, errorResponse{err.Error()})
		return
	}
	s.Log.Info("purged", "sequence", seq, "urls", len(req.URLs), "tags", len(req.Tags), "prefixes", len(req.Prefixes),
		"hosts", len(req.Hosts), "all", req.All, "soft", req.Soft)
	writeJSON(w, http.StatusOK, PurgeResponse{seq})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone if it fails
}

// isLoopback says whether a listening address can only be reached from this machine.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
