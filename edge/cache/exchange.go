package cache

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// exchange is one request on its way through the cache.
type exchange struct {
	w    *front.Exchange
	r    *http.Request
	site *site.Site
	// target is the target of the request, without what the site ignores.
	target    httpcache.Target
	targetURL string        // of target; "" until url is called
	key       httpcache.Key // of target and mark
	mark      string        // what the key has beside the target
	// trailers means that the client accepts trailers.
	trailers bool
	// peer means that the request comes from another edge of the fleet, which is trusted. stage is
	// where such a request goes next.
	peer  bool
	stage origin.Stage
	epoch uint64 // the newest purge when the store was searched
	// position is the place in the purge log that was applied then; it is set for requests of
	// peers. covered means that the response comes from another edge and is covered by a soft
	// purge.
	position storage.Position
	covered  bool
	// codings are the content codings of the edge that the client accepts, the best one first.
	codings []string
	// variant is the key of the variant that the request selects. It is known once the header block
	// of a flight has shown by which fields the URI varies.
	variant httpcache.Key
	// alone means that other requests must not join the fetch, because the client has as many
	// requests to the origin as one client may.
	alone bool
	// failedAlong means that a flight which the request followed has failed, perhaps because of its
	// leader's request.
	failedAlong bool
	// counts means that the bytes sent count for the object in readers. accounted is how many were
	// counted already. passed means that the request was passed through, so the origin sent just
	// these bytes.
	counts    bool
	accounted int64
	passed    bool
	// fetches means that the request was counted as one that goes to the origin.
	fetches bool
	// held are flights that the request has met and will join.
	held []*flight
	// serveStaleAfter is how long the request waits for the origin to confirm the stored response,
	// before it gets that response unconfirmed; 0 means no limit.
	serveStaleAfter time.Duration
}

// ServeStaleAfter is how long a request waits for the origin while the edge is cut off from the log
// of purges. It suffices for a new connection across an ocean.
const ServeStaleAfter = 2 * time.Second

// objectMeta returns what is known of a response to the request before there is one.
func (x *exchange) objectMeta(epoch uint64) objectMeta {
	return objectMeta{uri: x.key, url: x.url(), epoch: epoch}
}

// mayFetch reports whether the request may go to the origin. If not, it was answered.
func (x *exchange) mayFetch() bool {
	if x.fetches || x.w.BeforeFetch == nil {
		return true
	}
	x.fetches = true
	return x.w.BeforeFetch()
}

// url returns the URL of the target.
func (x *exchange) url() string {
	if x.targetURL == "" {
		x.targetURL = x.target.URL()
	}
	return x.targetURL
}

// client returns the address of the client. It is not valid if the address is unknown.
func (x *exchange) client() netip.Addr {
	from, _ := netip.ParseAddrPort(x.r.RemoteAddr)
	return from.Addr()
}

// network returns the network by which requests to origins are counted, or the zero Prefix if the
// request is not counted. The requests of a peer are counted at that peer.
func (x *exchange) network() netip.Prefix {
	if x.peer {
		return netip.Prefix{}
	}
	network, _ := front.NetworkOf(x.client())
	return network
}
