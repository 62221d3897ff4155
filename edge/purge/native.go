package purge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// MaxBody is the largest body of a request to the admin API, in bytes of JSON.
const MaxBody = 4 << 20

// Response is the answer to POST /v1/purge.
type Response struct {
	Sequence uint64 `json:"sequence"`
	// Edges is the progress of all edges, if the request waited for them (?wait=all).
	Edges []Progress `json:"edges,omitempty"`
}

// serveNative answers POST /v1/purge.
func (p *Purger) serveNative(w http.ResponseWriter, r *http.Request) {
	if !IsJSON(r.Header) {
		Fail(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json")
		return
	}
	var req Request
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody))
	d.DisallowUnknownFields()
	err := d.Decode(&req)
	if _, more := d.Token(); err == nil && more != io.EOF {
		err = errors.New("more than one JSON value")
	}
	if err != nil {
		Fail(w, http.StatusBadRequest, fmt.Sprintf("read the purge: %v", err))
		return
	}
	wait := r.URL.Query().Get("wait") == "all"
	if wait {
		end, err := p.waits.begin(GrantOf(r.Context()))
		if err != nil {
			failPurge(w, Fail, err)
			return
		}
		defer end()
	}
	seq, err := p.purge(r.Context(), req, nil)
	if err != nil {
		failPurge(w, Fail, err)
		return
	}
	resp := Response{Sequence: seq}
	if wait {
		limit, err := time.ParseDuration(r.URL.Query().Get("limit"))
		if err != nil || limit <= 0 || limit > maxWait {
			limit = defaultWait
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		resp.Edges = p.progress(ctx, seq, true)
	}
	WriteJSON(w, http.StatusOK, resp)
}

// Limits of ?wait=all. defaultWait applies if the query has no limit.
const (
	defaultWait = 10 * time.Second
	maxWait     = 5 * time.Minute
)

// progress returns the progress of all edges with a purge. Without a fleet, this edge is the only
// one.
func (p *Purger) progress(ctx context.Context, seq uint64, wait bool) []Progress {
	if p.Edges == nil && p.Store == nil {
		return nil
	}
	if p.Edges == nil {
		return []Progress{{Node: p.Node, Applied: p.Store.Epoch() >= seq, Live: true}}
	}
	return p.Edges.Progress(ctx, seq, wait)
}

// serveProgress answers GET /v1/purges/{sequence}.
func (p *Purger) serveProgress(w http.ResponseWriter, r *http.Request) {
	seq, err := strconv.ParseUint(r.PathValue("sequence"), 10, 64)
	if err != nil || seq == 0 {
		Fail(w, http.StatusBadRequest, "want the sequence of a purge, as POST /v1/purge gave it")
		return
	}
	WriteJSON(w, http.StatusOK, Response{Sequence: seq, Edges: p.progress(r.Context(), seq, false)})
}
