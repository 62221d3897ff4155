package origin

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Stage is a tier between a client and an origin. A request only moves on to later stages, so edges
// never wait for each other in a cycle.
type Stage int

// The stages in order.
const (
	ToOwner  Stage = iota // the edge of the region that owns the key
	ToShield              // the edge that fetches for all regions
	ToOrigin              // a server of the pool
)

const (
	// TierField tells an edge the stage at which to continue: "shield" or "origin". It is valid
	// only on the listener for peers.
	TierField = "Kaiku-Tier"
	// PurgesField carries purge positions between edges: in a request those that the response must
	// reflect, in a response those that it does reflect.
	PurgesField = "Kaiku-Purges"
	// KeyField and OriginField tell an edge what the key has beside the target, and the name of the
	// site's origin to ask.
	KeyField    = "Kaiku-Key"
	OriginField = "Kaiku-Origin"
	// FailedField marks an error response that an edge generated itself because it got no response
	// or refused the request. Its value is the reason. Only peers get it.
	FailedField = "Kaiku-Failed"
)

// ParseStage parses the value of a TierField. Unknown values mean ToOwner.
func ParseStage(s string) Stage {
	switch s {
	case "shield":
		return ToShield
	case "origin":
		return ToOrigin
	}
	return ToOwner
}

// Route leads from an edge to the origin of a site. It does not start or close its pools.
type Route struct {
	// Ring has the edges of the region, this one included, balanced by Hash. It is nil if there is
	// no other edge or this one is the shield.
	Ring *Pool
	// Shield has the edge that misses go through. It is nil if there is none or it is this edge.
	Shield *Pool
	Origin *Pool
}

// Stage returns the stage at which a request for key continues. from is the stage at which this
// edge received it.
func (r *Route) Stage(key string, from Stage) Stage {
	if from == ToOwner && (r.Ring == nil || r.Ring.ownsKey(key)) {
		from = ToShield
	}
	if from == ToShield && r.Shield == nil {
		from = ToOrigin
	}
	return from
}

// ownsKey reports whether the caller itself owns key in a ring, or no other edge is up to own it.
func (p *Pool) ownsKey(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, _ := p.pick(time.Now(), &FetchOptions{hash: xxhash.Sum64String(key)}, 0)
	return b == nil || b.Self
}

// Fetch sends req to the pool of a stage. It skips an edge that can't be reached, or that itself
// got no response from the origin. Requests that may not be repeated go to the origin directly. A
// timeout or a busy origin that an edge reports is returned as an error at once. Otherwise Fetch
// works like Pool.Fetch.
func (r *Route) Fetch(req *http.Request, o FetchOptions, stage Stage) (*http.Response, error) {
	if !retryable(req) {
		stage = ToOrigin // each further hop could repeat it
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
		if o.Mark != "" {
			out.Header.Set(KeyField, o.Mark)
		}
		if o.Origin != "" {
			out.Header.Set(OriginField, o.Origin)
		}
		resp, err := tier.pool.Fetch(out, o)
		switch {
		case err != nil && (req.Context().Err() != nil || errors.Is(err, ErrShare)):
			return nil, err
		case err != nil:
			continue
		case resp.Header.Get(FailedField) == "":
			return resp, nil
		}
		resp.Body.Close()
		switch resp.StatusCode { // asking the origin again would only take as long again
		case http.StatusServiceUnavailable:
			return nil, fmt.Errorf("%w, says another edge", ErrBusy)
		case http.StatusGatewayTimeout:
			return nil, &timeoutError{"the origin did not answer another edge in time"}
		}
	}
	resp, err := r.Origin.Fetch(req, o)
	if err == nil {
		delete(resp.Header, PurgesField) // only edges may set it
	}
	return resp, err
}
