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

// Purger makes purges on a node: here, or everywhere if there is a log. The fields are set before
// it is used and not changed after.
type Purger struct {
	Node   string // the name of this one
	Sites  *site.Table
	Store  *storage.Store // nil on a node that is no edge
	Purges Log            // nil means that purges are this edge's own
	Fleet  Fleet          // nil means that there are no other nodes
	Tokens *Tokens
	// From are the networks whose clients may send PURGE and BAN to the listener for clients.
	// Without any, and without tokens, these are methods like others.
	From []netip.Prefix
	Log  *slog.Logger
	// Refused is told of purges by clients that may not; nil is nobody.
	Refused func(r *http.Request, status int, why string)

	waits waits
	// notUnderstood counts purges of the log that this edge could not read or apply as they are.
	notUnderstood atomic.Uint64
}

// Fleet tells how far the edges of a fleet are.
type Fleet interface {
	// Progress tells how far each edge is with a purge. With wait it returns once all have
	// applied it, or ctx ends.
	Progress(ctx context.Context, seq uint64, wait bool) []Progress
}

// Trusts reports whether what is stored may be used without asking the origin.
func (p *Purger) Trusts() bool { return p.Purges == nil || p.Purges.InTouch() }

// CutOff reports whether it is to be confirmed, if that can be had.
func (p *Purger) CutOff() bool { return p.Purges != nil && p.Purges.CutOff() }

// requestError is an error of who asked.
type requestError struct{ error }

// forbiddenError says why who asked may not.
type forbiddenError struct{ error }

// read parses what a client asks for, and fails if it may not have that, or if that is of more than
// the site that it is to be within; nil is any.
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

// purge makes the purge that a client asks for, and logs it.
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

// do purges here, or everywhere if there is a log.
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
		return 0, fmt.Errorf("%w: this node is no edge, and the fleet has no control plane", ErrNoLog)
	}
	return p.Store.Purge(parsed.Store)
}

// statusOf is the status of the answer to who asked for a purge that failed.
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
