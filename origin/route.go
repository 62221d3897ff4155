package origin

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Stage is a tier on the way from a client to an origin. A request only ever goes on to a later
// one, so that edges never wait for each other in a circle.
type Stage int

// The stages in their order.
const (
	ToOwner  Stage = iota // the edge of the region that owns the key
	ToShield              // the edge that all others ask
	ToOrigin              // a server of the pool
)

const (
	// TierField tells an edge, on its listener for peers alone, at which stage it has to go on:
	// "shield" or "origin".
	TierField = "Kaiku-Tier"
	// PurgesField tells an edge which purges its answer has to know of, and in an answer which ones
	// that knows of. Edges alone send it to each other.
	PurgesField = "Kaiku-Purges"
	// FailedField marks an error that an edge made itself because it got no answer or refused the
	// request, with the reason. Peers see it alone.
	FailedField = "Kaiku-Failed"
)

// ParseStage reads a TierField.
func ParseStage(s string) Stage {
	switch s {
	case "shield":
		return ToShield
	case "origin":
		return ToOrigin
	}
	return ToOwner
}

// Route is the way to the origin of a site. The pools are started and closed by whoever made them.
type Route struct {
	Ring   *Pool // the edges of the region, the own one included, in the Hash balance; nil means that there is none but this, or that it is the shield
	Shield *Pool // the edge that misses go through; nil means none, or that it is this one
	Origin *Pool
}

// Stage returns where a request goes on for a key that came to be fetched at stage came.
func (r *Route) Stage(key string, from Stage) Stage {
	if from == ToOwner && (r.Ring == nil || r.Ring.ownsKey(key)) {
		from = ToShield
	}
	if from == ToShield && r.Shield == nil {
		from = ToOrigin
	}
	return from
}

// ownsSelf reports whether a pick for the key falls on the caller.
func (p *Pool) ownsKey(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, _ := p.pick(time.Now(), &Ask{hash: xxhash.Sum64String(key)}, 0)
	return b == nil || b.Self
}

// Fetch sends a request on at a stage. An edge that can't be reached, or that says it has no way to
// the origin itself, is passed over. It is Pool.Fetch for the rest.
func (r *Route) Fetch(req *http.Request, a Ask, stage Stage) (*http.Response, error) {
	if !retryable(req) {
		stage = ToOrigin // what must not be sent twice has one way only
	}
	for _, tier := range []struct {
		stage Stage
		pool  *Pool
		next  string
	}{{ToOwner, r.Ring, "shield"}, {ToShield, r.Shield, "origin"}} {
		if stage > tier.stage || tier.pool == nil {
			continue
		}
		out := req.Clone(req.Context())
		out.Header.Set(TierField, tier.next)
		resp, err := tier.pool.Fetch(out, a)
		switch {
		case err != nil && (req.Context().Err() != nil || errors.Is(err, ErrShare)):
			return nil, err
		case err != nil:
			continue
		case resp.Header.Get(FailedField) == "":
			return resp, nil
		}
		resp.Body.Close()
		switch resp.StatusCode { // what would only take as long again is not asked for again
		case http.StatusServiceUnavailable:
			return nil, fmt.Errorf("%w, says another edge", ErrBusy)
		case http.StatusGatewayTimeout:
			return nil, &timeoutError{"the origin did not answer another edge in time"}
		}
	}
	resp, err := r.Origin.Fetch(req, a)
	if err == nil {
		delete(resp.Header, PurgesField) // an origin has no say in it
	}
	return resp, err
}
