package edge

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// fastlyDone is the answer to a purge by URL, tag or service.
type fastlyDone struct {
	Status string `json:"status"`
	ID     string `json:"id"` // the sequence
}

// failFastly writes an error as Fastly's clients read it.
func failFastly(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, struct {
		Message string `json:"msg"`
		Detail  string `json:"detail"`
	}{http.StatusText(status), text})
}

// fromNoPage refuses what a web page could send to an edge on its visitor's machine without asking
// that first. It matters where there are no tokens.
func fromNoPage(w http.ResponseWriter, r *http.Request, fail failure) bool {
	h := r.Header
	if isJSON(h) || h.Get("Fastly-Key") != "" || h.Get("Authorization") != "" || r.Method == "PURGE" {
		return true
	}
	fail(w, http.StatusUnsupportedMediaType, "want Fastly-Key, Authorization or Content-Type: application/json")
	return false
}

func fastlySoft(h http.Header) bool { return h.Get("Fastly-Soft-Purge") == "1" }

// serveFastlyKey purges the tag of the path.
func (s *Server) serveFastlyKey(w http.ResponseWriter, r *http.Request) {
	if !fromNoPage(w, r, failFastly) {
		return
	}
	if seq, ok := s.purgeIn(w, r, r.PathValue("id"), PurgeRequest{Tags: []string{r.PathValue("key")}, Soft: fastlySoft(r.Header)}, failFastly); ok {
		writeJSON(w, http.StatusOK, fastlyDone{"ok", seq})
	}
}

// serveFastlyKeys purges the tags of the field Surrogate-Key, or of the body.
func (s *Server) serveFastlyKeys(w http.ResponseWriter, r *http.Request) {
	if !fromNoPage(w, r, failFastly) {
		return
	}
	req := PurgeRequest{Soft: fastlySoft(r.Header)}
	for _, v := range r.Header["Surrogate-Key"] {
		req.Tags = append(req.Tags, strings.Fields(v)...)
	}
	if len(req.Tags) == 0 {
		var body struct {
			Keys []string `json:"surrogate_keys"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPurgeBody)).Decode(&body); err != nil && err != io.EOF {
			failFastly(w, http.StatusBadRequest, fmt.Sprintf("read the keys: %v", err))
			return
		}
		req.Tags = body.Keys
	}
	seq, ok := s.purgeIn(w, r, r.PathValue("id"), req, failFastly)
	if !ok {
		return
	}
	done := map[string]string{}
	for _, t := range req.Tags {
		done[t] = seq
	}
	writeJSON(w, http.StatusOK, done)
}

// serveFastlyAll purges a service, that is, a site.
func (s *Server) serveFastlyAll(w http.ResponseWriter, r *http.Request) {
	if !fromNoPage(w, r, failFastly) {
		return
	}
	if seq, ok := s.purgeIn(w, r, r.PathValue("id"), PurgeRequest{All: true, Soft: fastlySoft(r.Header)}, failFastly); ok {
		writeJSON(w, http.StatusOK, fastlyDone{"ok", seq})
	}
}

// serveFastlyURL purges the URL of PURGE http://host/path, PURGE /path with a Host, or POST
// /purge/host/path.
func (s *Server) serveFastlyURL(w http.ResponseWriter, r *http.Request) {
	if !fromNoPage(w, r, failFastly) {
		return
	}
	t, err := httpcache.ParseTarget(r, false)
	if err == nil && r.Method == http.MethodPost {
		raw := strings.TrimPrefix(t.RequestURI(), fastlyURLs)
		if !strings.Contains(raw, "://") {
			raw = "http://" + raw
		}
		t, err = httpcache.ParseURL(raw)
	}
	if err != nil {
		failFastly(w, http.StatusBadRequest, err.Error())
		return
	}
	req := PurgeRequest{URLs: []string{t.String()}, Soft: fastlySoft(r.Header)}
	seq, status, err := s.purgeFor(r.Context(), req)
	if err != nil {
		failPurge(w, failFastly, status, err)
		return
	}
	writeJSON(w, http.StatusOK, fastlyDone{"ok", strconv.FormatUint(seq, 10)})
}

// fastlyURLs is before a URL in a path.
const fastlyURLs = "/purge/"
