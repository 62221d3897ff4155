package edge

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"
)

// cloudflarePurge is the body of Cloudflare's purge_cache.
type cloudflarePurge struct {
	Files      []cloudflareFile `json:"files"`
	Tags       []string         `json:"tags"`
	Hosts      []string         `json:"hosts"`
	Prefixes   []string         `json:"prefixes"` // without a scheme
	Everything bool             `json:"purge_everything"`
}

// cloudflareFile is a URL, alone or with the request fields of one variant. All variants are
// purged.
type cloudflareFile string

// UnmarshalJSON takes both forms.
func (f *cloudflareFile) UnmarshalJSON(b []byte) error {
	var v struct {
		URL string `json:"url"`
	}
	if len(b) > 0 && b[0] == '{' {
		err := json.Unmarshal(b, &v)
		*f = cloudflareFile(v.URL)
		return err
	}
	return json.Unmarshal(b, (*string)(f))
}

// cloudflareAnswer is the form of all its answers.
type cloudflareAnswer struct {
	Success  bool              `json:"success"`
	Errors   []cloudflareError `json:"errors"`
	Messages []cloudflareError `json:"messages"`
	Result   *cloudflareResult `json:"result"`
}

type cloudflareError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type cloudflareResult struct {
	ID string `json:"id"` // the sequence
}

// failCloudflare writes an error as Cloudflare's clients read it. The code is the status.
func failCloudflare(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, cloudflareAnswer{Errors: []cloudflareError{{status, text}}, Messages: []cloudflareError{}})
}

func isJSON(h http.Header) bool {
	t, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return t == "application/json"
}

func (s *Server) serveCloudflarePurge(w http.ResponseWriter, r *http.Request) {
	if !isJSON(r.Header) { // see servePurge
		failCloudflare(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json")
		return
	}
	var body cloudflarePurge
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPurgeBody)).Decode(&body); err != nil {
		failCloudflare(w, http.StatusBadRequest, fmt.Sprintf("read the purge: %v", err))
		return
	}
	req := PurgeRequest{Tags: body.Tags, Hosts: body.Hosts, All: body.Everything}
	for _, f := range body.Files {
		req.URLs = append(req.URLs, string(f))
	}
	for _, p := range body.Prefixes {
		if !strings.Contains(p, "://") {
			p = "http://" + p
		}
		req.Prefixes = append(req.Prefixes, p)
	}
	if seq, ok := s.purgeIn(w, r, r.PathValue("zone"), req, failCloudflare); ok {
		writeJSON(w, http.StatusOK, cloudflareAnswer{true, []cloudflareError{}, []cloudflareError{}, &cloudflareResult{seq}})
	}
}
