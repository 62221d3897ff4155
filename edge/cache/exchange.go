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
	// target is what of that which the client asked for the site doesn't ignore.
	target httpcache.Target
	key    httpcache.Key // of target
	// trailers says that the client takes trailers.
	trailers bool
	// peer means that the request comes from another edge of the fleet, which is trusted. stage is
	// where such a request goes next.
	peer  bool
	stage origin.Stage
	epoch uint64 // the newest purge when what is stored was looked up
	// position is what of the purge log was applied then, of a peer's request, and covered says
	// that the answer is what a soft purge of that covers.
	position storage.Position
	covered  bool
	// variant is the key of the variant that the request selects, once a flight that has not landed
	// showed by what the URI varies.
	variant httpcache.Key
	// alone says that nobody else is to wait for what is fetched, as the client has its share of
	// the requests to the origin.
	alone bool
	// failedAlong says that a flight which the request followed has failed, perhaps by what its
	// leader sent.
	failedAlong bool
	// counts says that what is sent counts for the object among readers, accounted how much did
	// already, and asAsked that the origin sent just that.
	counts    bool
	accounted int64
	asAsked   bool
	// held are flights that the request found on its way and will join.
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
	return objectMeta{uri: x.key, url: x.target.URL(), epoch: epoch}
}

// client is the address of the client; it is not valid if that is not known.
func (x *exchange) client() netip.Addr {
	from, _ := netip.ParseAddrPort(x.r.RemoteAddr)
	return from.Addr()
}

// network is what the requests of a client to origins are counted by; zero if they are not. Those
// of a peer are counted where its clients are.
func (x *exchange) network() netip.Prefix {
	if x.peer {
		return netip.Prefix{}
	}
	network, _ := front.NetworkOf(x.client())
	return network
}
