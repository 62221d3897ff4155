package purge

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// CloudflareRequest is the body of Cloudflare's purge_cache.
type CloudflareRequest struct {
	Files      []CloudflareFile `json:"files"`
	Tags       []string         `json:"tags"`
	Hosts      []string         `json:"hosts"`
	Prefixes   []string         `json:"prefixes"` // without a scheme
	Everything bool             `json:"purge_everything"`
}

// CloudflareFile is a URL, alone or with the request fields of one variant. The purge removes all
// variants.
type CloudflareFile string

// UnmarshalJSON reads both forms.
func (f *CloudflareFile) UnmarshalJSON(b []byte) error {
	var v struct {
		URL string `json:"url"`
	}
	if len(b) > 0 && b[0] == '{' {
		err := json.Unmarshal(b, &v)
		*f = CloudflareFile(v.URL)
		return err
	}
	return json.Unmarshal(b, (*string)(f))
}

// CloudflareResponse is the body of every response.
type CloudflareResponse struct {
	Success  bool              `json:"success"`
	Errors   []CloudflareError `json:"errors"`
	Messages []CloudflareError `json:"messages"`
	Result   *CloudflareResult `json:"result"`
}

// CloudflareError is one of the errors of a CloudflareResponse.
type CloudflareError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// CloudflareResult identifies the purge.
type CloudflareResult struct {
	ID string `json:"id"` // the sequence
}

// failCloudflare writes an error in the form that Cloudflare's clients read. Its code is the
// status.
func failCloudflare(w http.ResponseWriter, status int, text string) {
	WriteJSON(w, status, CloudflareResponse{Errors: []CloudflareError{{status, text}}, Messages: []CloudflareError{}})
}

// serveCloudflare answers purge_cache.
func (p *Purger) serveCloudflare(w http.ResponseWriter, r *http.Request) {
	if !IsJSON(r.Header) {
		failCloudflare(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json")
		return
	}
	var body CloudflareRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody)).Decode(&body); err != nil {
		failCloudflare(w, http.StatusBadRequest, fmt.Sprintf("read the purge: %v", err))
		return
	}
	req := Request{Tags: body.Tags, Hosts: body.Hosts, All: body.Everything}
	for _, f := range body.Files {
		req.URLs = append(req.URLs, string(f))
	}
	for _, prefix := range body.Prefixes {
		if !strings.Contains(prefix, "://") {
			prefix = "http://" + prefix
		}
		req.Prefixes = append(req.Prefixes, prefix)
	}
	seq, err := p.purgeIn(r.Context(), r.PathValue("zone"), req)
	if err != nil {
		failPurge(w, failCloudflare, err)
		return
	}
	WriteJSON(w, http.StatusOK, CloudflareResponse{true, []CloudflareError{}, []CloudflareError{},
		&CloudflareResult{seq}})
}
