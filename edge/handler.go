package edge

import (
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// healthPath answers 200 on every host while the edge takes requests.
const healthPath = "/.kaiku/health"

// exchange is one request on its way through the edge.
type exchange struct {
	w    *front.Exchange
	r    *http.Request
	site *Site
	// asked is what the client asked for, and target what of that the site doesn't ignore. The key
	// is that of target.
	asked, target httpcache.Target
	key           httpcache.Key
	// trailers says that the client takes trailers.
	trailers bool
	// peer says that it came from another edge of the fleet, which is trusted, and came at which
	// stage it has to go on.
	peer  bool
	came  origin.Stage
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
	// hasty says that what is stored will do if the origin does not confirm it within hastyTime.
	hasty bool
}

// hastyTime is enough for a new connection to an origin over any ocean.
const hastyTime = 2 * time.Second

// born is what is stored of an answer to the request, as far as that is known without the answer.
func (x *exchange) born(epoch uint64) born {
	return born{uri: x.key, url: x.target.URL(), epoch: epoch}
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

// handler answers what comes from clients and other edges.
type handler struct{ *Server }

// Answer answers a request.
func (h handler) Answer(on *front.Exchange) {
	x := &exchange{w: on, r: on.Request, asked: on.Target, peer: on.Peer}
	if x.peer {
		x.came, x.position = origin.ParseStage(x.r.Header.Get(origin.TierField)), h.Store.Position()
	}
	h.serve(x)
}

// admitPeer reports whether another edge is answered: not while this one lacks purges that the other
// has applied.
func (s *Server) admitPeer(w http.ResponseWriter, r *http.Request) bool {
	if s.purger.Await(r.Context(), r.Header) {
		return true
	}
	s.behind(w)
	return false
}

func (s *Server) serve(x *exchange) {
	w, r := x.w, x.r
	if x.asked.Path == healthPath {
		s.serveHealth(w)
		return
	}
	if len(r.TransferEncoding) > 0 && r.ProtoMajor == 1 {
		// It may have had a Content-Length too, which ends the connection (RFC 9112, 6.1), and of
		// which net/http does not tell.
		w.Header().Set("Connection", "close")
	}
	if r.TLS == nil && !x.peer && s.Certificates.AnswerChallenge(w, r, x.asked.Host) {
		return
	}
	x.site, _ = s.sites.Now().Find(x.asked.Host)
	if status, why := s.mayServe(x); status != 0 {
		w.Refuse(status, why)
		return
	}
	w.SetSite(x.site.Name)
	s.setHSTS(x)
	x.target = x.site.Reduce(x.asked)
	x.key = x.target.Key()
	if !x.peer && s.purger.IsPurge(r) {
		s.purger.ServeAtEdge(w, r, x.asked, x.site)
		return
	}
	x.cleanFields()
	switch {
	case s.sendToSecure(x):
	case (r.Method == http.MethodTrace || r.Method == http.MethodOptions) && s.lastHop(x):
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		s.pass(x, "method")
	case r.Header["If-Match"] != nil, r.Header["If-Unmodified-Since"] != nil:
		s.pass(x, "bypass") // only the origin can evaluate these (RFC 9111, 4.3.2)
	case r.Header.Get("Upgrade") != "", r.ContentLength != 0:
		s.pass(x, "bypass") // a GET with a body has no meaning that a cache knows (RFC 9110, 9.3.1)
	default:
		s.lookup(x)
	}
}

// serveHealth tells whoever asks whether the edge serves.
func (s *Server) serveHealth(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Cache-Control", "no-store")
	status, text := http.StatusOK, "ok\n"
	if !s.purger.Trusts() {
		status, text = http.StatusServiceUnavailable, "behind with purges\n"
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// mayServe returns the status that a request with a target is refused with, and why; 0 if it is
// not.
func (s *Server) mayServe(x *exchange) (status int, why string) {
	fields := 0
	for _, lines := range x.r.Header {
		fields += len(lines)
	}
	switch {
	case x.site == nil:
		return http.StatusMisdirectedRequest, "no site has this host"
	case x.r.TLS != nil && !x.peer && !s.sites.Now().ReachedBy(x.r.TLS.ServerName, x.site):
		return http.StatusMisdirectedRequest, "the TLS connection was made to another site"
	case x.r.URL.Scheme == "https" && x.r.TLS == nil: // an absolute-form target (RFC 9112, 3.2.2)
		return http.StatusMisdirectedRequest, "https over a plain connection"
	case s.loops(x.r.Header):
		return http.StatusLoopDetected, "the request was here before: the origin of the site, or a proxy before it, leads back to this edge"
	case fields > front.MaxFields:
		return http.StatusRequestHeaderFieldsTooLarge, "too many header fields"
	}
	return 0, ""
}

// lookup answers a GET or HEAD from the store or by a flight. It begins anew where the ground
// moved: a damaged object, a flight whose response is another variant.
func (s *Server) lookup(x *exchange) {
	defer s.letGo(x)
	directives := httpcache.RequestDirectives(x.r.Header)
	for range 4 {
		x.hasty = false
		if x.peer {
			x.position = s.Store.Position() // before the epoch, so that the answer is not older
		}
		x.epoch = s.Store.Epoch() // before the look: a purge that comes after it covers what comes of it
		e, own := s.cache.find(x.key, x.r.Header)
		if e == nil && own == x.key && x.variant != "" {
			own = x.variant
		}
		if e != nil && e.size >= 0 && e.StrongValidator() == "" && !e.covers(x.r) {
			e = nil // a part that nothing can be added to
		}
		if e == nil {
			if s.miss(x, directives, own) {
				return
			}
			continue
		}
		d := x.site.Policy.Decide(directives, e.Stored, e.object.Stale, time.Now())
		switch {
		case !s.purger.Trusts() || e.object.Doubtful: // a purge of it may not have come here
			d.Action, d.Forward, d.StaleIfError, d.StaleIfDown = httpcache.Validate, "stale", false, false
		case s.purger.CutOff() && d.Action != httpcache.Validate && !directives.OnlyIfCached && x.r.Method != http.MethodHead: // nor here, but who may ask nobody goes on with what there is
			if x.site.Origin.Origin.Answers() {
				d.Action, d.Forward, d.StaleIfError, d.StaleIfDown, x.hasty = httpcache.Validate, "stale", true, true, true
			} else {
				s.revalidate(x, e, d, own) // the first answer ends this
			}
		}
		if x.peer && d.Action == httpcache.ServeStale {
			d.Action = httpcache.Validate // the peer's client need not wait for this, and the peer wants something fresh
		}
		detail := "stale-while-revalidate"
		if d.Action == httpcache.Validate && !directives.NoCache && !directives.OnlyIfCached && s.isFailing(x, d) {
			d.Action, detail = httpcache.ServeStale, staleIfError
		}
		st := httpcache.Status{Hit: true, TTL: d.TTL, HasTTL: true, Key: x.key}
		switch d.Action {
		case httpcache.ServeStale:
			s.revalidate(x, e, d, own)
			st.Detail = detail
			fallthrough
		case httpcache.Serve:
			if s.serveEntry(x, e, st, e.Unvalidated()) {
				return
			}
		default:
			switch {
			case directives.OnlyIfCached:
				x.w.Fail(http.StatusGatewayTimeout, httpcache.Status{Detail: "only-if-cached"})
				return
			case x.r.Method == http.MethodHead:
				s.proxy(x, s.ask(x), httpcache.Status{Forward: d.Forward, Key: x.key}, nil, e, d)
				return
			case s.follow(x, e, d, own, d.Forward):
				return
			}
		}
	}
	s.pass(x, "miss")
}

// miss answers a request for which nothing is stored.
func (s *Server) miss(x *exchange, directives httpcache.Directives, own httpcache.Key) bool {
	forward := "uri-miss"
	if own != x.key {
		forward = "vary-miss"
	}
	switch {
	case directives.OnlyIfCached:
		x.w.Fail(http.StatusGatewayTimeout, httpcache.Status{Detail: "only-if-cached"})
	case x.r.Method == http.MethodHead, directives.NoStore:
		s.pass(x, forward)
	default:
		return s.follow(x, nil, httpcache.Decision{}, own, forward)
	}
	return true
}

// behind answers a peer that knows of purges that have not come here yet; it goes on to the next
// tier.
func (s *Server) behind(w http.ResponseWriter) {
	w.Header().Set(origin.FailedField, "behind-with-purges")
	w.WriteHeader(http.StatusBadGateway)
}
