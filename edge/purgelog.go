package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// PurgeLog is a log of purges that all edges of a fleet follow.
type PurgeLog interface {
	// Append puts a purge into the log and returns its sequence once it can't be lost. It fails with an error that is ErrNoPurgeLog if the log can't be reached.
	Append(ctx context.Context, p PurgeRequest) (seq uint64, err error)
	// Applied is the place in the log up to which Server.Apply was called.
	Applied() storage.Position
	// InTouch says whether this edge may trust what it has: not long ago it had applied all that there was.
	InTouch() bool
}

// ErrNoPurgeLog says that a purge was refused because the log can't be reached.
var ErrNoPurgeLog = errors.New("purge log unavailable")

// Apply applies purges of the log. What is not understood, as that of a newer version, makes everything stale.
func (s *Server) Apply(requests []PurgeRequest, after storage.Position) error {
	purges := make([]storage.Purge, len(requests))
	for i, r := range requests {
		p, err := r.purge(s.known)
		if err != nil {
			s.Log.Error("a purge of the log is not understood: everything becomes stale", "error", err)
			p = storage.Purge{All: true, Soft: true}
		}
		purges[i] = p
	}
	return s.Store.Apply(purges, after)
}

// purge purges here, or everywhere if there is a log.
func (s *Server) purge(ctx context.Context, req PurgeRequest) (uint64, error) {
	p, err := req.purge(s.known)
	if err != nil {
		return 0, &requestError{err}
	}
	if s.Purges != nil {
		return s.Purges.Append(ctx, req)
	}
	return s.Store.Purge(p)
}

// requestError is an error of who asked.
type requestError struct{ error }

// trusts says whether what is stored may be used without asking the origin.
func (s *Server) trusts() bool { return s.Purges == nil || s.Purges.InTouch() }

// purgesField tells a peer which purges the answer has to know of, as "log sequence".
const purgesField = "Kaiku-Purges"

// setPurges notes what this edge has applied in a request to a peer.
func (s *Server) setPurges(h http.Header) {
	if s.Purges == nil {
		return
	}
	if p := s.Purges.Applied(); p.Seq > 0 {
		h.Set(purgesField, fmt.Sprintf("%d %d", p.Log, p.Seq))
	}
}

// peerPurgeWait is how long a peer's request waits for a purge that the peer knows and this edge does not.
const peerPurgeWait = time.Second

// knowsPurges waits until this edge has applied what the peer has. What it is about to answer could have been purged by then, and the peer would store it again.
func (s *Server) knowsPurges(ctx context.Context, field string) bool {
	if s.Purges == nil || field == "" {
		return true
	}
	number, seq, _ := strings.Cut(field, " ")
	want := storage.Position{}
	var err1, err2 error
	want.Log, err1 = strconv.ParseUint(number, 10, 64)
	want.Seq, err2 = strconv.ParseUint(seq, 10, 64)
	if err1 != nil || err2 != nil {
		return false
	}
	knows := func() bool {
		have := s.Purges.Applied()
		return have.Log == want.Log && have.Seq >= want.Seq
	}
	if knows() {
		return true
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(peerPurgeWait)
	for {
		select {
		case <-tick.C:
			if knows() {
				return true
			}
		case <-end:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// behind answers a peer that knows of purges that have not come here yet; it goes on to the next tier.
func (s *Server) behind(w http.ResponseWriter) {
	w.Header().Set(origin.FailedField, "behind-with-purges")
	w.WriteHeader(http.StatusBadGateway)
}
