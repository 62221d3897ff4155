package purge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Purger makes purges on a node: on all edges if there is a log, otherwise on this node only. Its
// fields are set before it is used and not changed after.
type Purger struct {
	Node   string // the name of this one
	Sites  *site.Table
	Store  *storage.Store // nil on a node that is no edge
	Purges Log            // nil means that purges are this edge's own
	Edges  Edges          // nil means that there are no other nodes
	Tokens *Tokens
	// From are the networks whose clients may send PURGE and BAN to the listener for clients.
	// Without any, and without tokens, the edge treats PURGE and BAN like other methods.
	From []netip.Prefix
	Log  *slog.Logger
	// Refused is called for purges of clients that may not make them; nil means that nothing is
	// called.
	Refused func(r *http.Request, status int, why string)

	waits waits
	// notUnderstood counts the log's purges that this edge couldn't read, or couldn't apply as they
	// are.
	notUnderstood atomic.Uint64
}

// Edges reports the progress of the edges of a fleet.
type Edges interface {
	// Progress returns the progress of each edge with a purge. With wait, it returns once all edges
	// have applied the purge, or when ctx ends.
	Progress(ctx context.Context, seq uint64, wait bool) []Progress
}

// Trusts reports whether stored objects may be used without asking the origin.
func (p *Purger) Trusts() bool { return p.Purges == nil || p.Purges.InTouch() }

// CutOff reports whether stored objects have to be confirmed, as far as the origin can be reached.
func (p *Purger) CutOff() bool { return p.Purges != nil && p.Purges.CutOff() }

// requestError is an error in the client's request.
type requestError struct{ error }

// forbiddenError is the error of a purge that the client may not make.
type forbiddenError struct{ error }

// read parses a client's request. It returns an error if the client may not make the purge, or if
// the purge covers more than the site within; nil means any.
func (p *Purger) read(g *Grant, req Request, within *site.Site) (*Purge, error) {
	parsed, bad := Parse(req, p.Sites.Now())
	if within != nil {
		if err := parsed.within(within); err != nil {
			return nil, &forbiddenError{err}
		}
	}
	if err := g.mayPurge(parsed); err != nil {
		return nil, &forbiddenError{err}
	}
	if bad != nil {
		return nil, &requestError{bad}
	}
	return parsed, nil
}

// purge makes the purge that a client requests, and logs it.
func (p *Purger) purge(ctx context.Context, req Request, within *site.Site) (seq uint64, err error) {
	parsed, err := p.read(GrantOf(ctx), req, within)
	if err == nil {
		seq, err = p.do(ctx, parsed)
	}
	if err != nil {
		if statusOf(err) == http.StatusInternalServerError {
			p.Log.Error("purge failed", "error", err)
		}
		return 0, err
	}
	p.Log.Info("purged", "sequence", seq, "urls", len(req.URLs), "tags", len(req.Tags), "prefixes", len(req.Prefixes),
		"hosts", len(req.Hosts), "all", req.All, "soft", req.Soft)
	return seq, nil
}

// do purges on all edges if there is a log, otherwise on this node.
func (p *Purger) do(ctx context.Context, parsed *Purge) (uint64, error) {
	for _, n := range parsed.named {
		if n.site == nil {
			return 0, p.Sites.Now().Unknown(n.host)
		}
	}
	if p.Purges != nil {
		return p.Purges.Append(ctx, parsed.site(), parsed.Request)
	}
	if p.Store == nil {
		return 0, fmt.Errorf("%w: this node is not an edge, and the fleet has no control plane", ErrNoLog)
	}
	return p.Store.Purge(parsed.Store)
}

// statusOf returns the status for the error of a purge.
func statusOf(err error) int {
	switch {
	case errors.As(err, new(*requestError)):
		return http.StatusBadRequest
	case errors.As(err, new(*forbiddenError)), errors.Is(err, ErrNotAllowed):
		return http.StatusForbidden
	case errors.As(err, new(*site.UnknownHostError)), errors.As(err, new(*noSiteError)):
		return http.StatusNotFound
	case errors.Is(err, ErrNoLog), errors.As(err, new(*tooManyError)):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
