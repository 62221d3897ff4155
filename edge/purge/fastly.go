package purge

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// FastlyResponse is the answer to a purge by URL, tag or service.
type FastlyResponse struct {
	Status string `json:"status"`
	ID     string `json:"id"` // the sequence
}

// failFastly writes an error in the form that Fastly's clients read.
func failFastly(w http.ResponseWriter, status int, text string) {
	WriteJSON(w, status, struct {
		Message string `json:"msg"`
		Detail  string `json:"detail"`
	}{http.StatusText(status), text})
}

// fromNoPage refuses requests that a web page could send to an edge on its visitor's machine
// without a preflight request. This matters if there are no tokens.
func fromNoPage(w http.ResponseWriter, r *http.Request, fail Failure) bool {
	h := r.Header
	if IsJSON(h) || h.Get("Fastly-Key") != "" || h.Get("Authorization") != "" || r.Method == "PURGE" {
		return true
	}
	fail(w, http.StatusUnsupportedMediaType, "want Fastly-Key, Authorization or Content-Type: application/json")
	return false
}

func fastlySoft(h http.Header) bool { return h.Get("Fastly-Soft-Purge") == "1" }

// fastly purges for the service in the path, and answers.
func (p *Purger) fastly(w http.ResponseWriter, r *http.Request, req Request) {
	seq, err := p.purgeIn(r.Context(), r.PathValue("id"), req)
	if err != nil {
		failPurge(w, failFastly, err)
		return
	}
	WriteJSON(w, http.StatusOK, FastlyResponse{"ok", seq})
}

// serveFastlyKey purges the tag in the path.
func (p *Purger) serveFastlyKey(w http.ResponseWriter, r *http.Request) {
	if !fromNoPage(w, r, failFastly) {
		return
	}
	p.fastly(w, r, Request{Tags: []string{r.PathValue("key")}, Soft: fastlySoft(r.Header)})
}

// serveFastlyKeys purges the tags in the field Surrogate-Key, or in the body.
func (p *Purger) serveFastlyKeys(w http.ResponseWriter, r *http.Request) {
	if !fromNoPage(w, r, failFastly) {
		return
	}
	req := Request{Soft: fastlySoft(r.Header)}
	for _, v := range r.Header["Surrogate-Key"] {
		req.Tags = append(req.Tags, strings.Fields(v)...)
	}
	if len(req.Tags) == 0 {
		var body struct {
			Keys []string `json:"surrogate_keys"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody)).Decode(&body); err != nil && err != io.EOF {
			failFastly(w, http.StatusBadRequest, fmt.Sprintf("read the keys: %v", err))
			return
		}
		req.Tags = body.Keys
	}
	seq, err := p.purgeIn(r.Context(), r.PathValue("id"), req)
	if err != nil {
		failPurge(w, failFastly, err)
		return
	}
	done := map[string]string{}
	for _, t := range req.Tags {
		done[t] = seq
	}
	WriteJSON(w, http.StatusOK, done)
}

// serveFastlyAll purges a service, which is a site.
func (p *Purger) serveFastlyAll(w http.ResponseWriter, r *http.Request) {
	if !fromNoPage(w, r, failFastly) {
		return
	}
	p.fastly(w, r, Request{All: true, Soft: fastlySoft(r.Header)})
}

// serveFastlyURL purges the URL of PURGE http://host/path, PURGE /path with a Host, or POST
// /purge/host/path.
func (p *Purger) serveFastlyURL(w http.ResponseWriter, r *http.Request) {
	if !fromNoPage(w, r, failFastly) {
		return
	}
	t, err := httpcache.ParseTarget(r, false)
	if err == nil && r.Method == http.MethodPost {
		raw := strings.TrimPrefix(t.RequestURI(), FastlyURLs)
		if !strings.Contains(raw, "://") {
			raw = "http://" + raw
		}
		t, err = httpcache.ParseURL(raw)
	}
	if err != nil {
		failFastly(w, http.StatusBadRequest, err.Error())
		return
	}
	seq, err := p.purge(r.Context(), Request{URLs: []string{t.String()}, Soft: fastlySoft(r.Header)}, nil)
	if err != nil {
		failPurge(w, failFastly, err)
		return
	}
	WriteJSON(w, http.StatusOK, FastlyResponse{"ok", strconv.FormatUint(seq, 10)})
}

// FastlyURLs is the path before a URL. Such a path must not be cleaned, because it contains "//".
const FastlyURLs = "/purge/"
