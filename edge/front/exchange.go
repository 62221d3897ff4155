package front

import (
	"container/list"
	"io"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// Exchange is a request of a client or of another edge, and the response to it. It is a
// ResponseWriter that records what is counted and logged, and that aborts writes to slow clients.
type Exchange struct {
	http.ResponseWriter
	Request *http.Request
	Target  httpcache.Target // what the request is for
	Peer    bool             // it came from another edge of the fleet, which is trusted
	// BeforeFetch is called before the request goes to the origin. It reports false if it has
	// answered the request instead. nil means that nothing is called.
	BeforeFetch func() bool

	server  *Server // nil for a writer of the hit lane
	control *http.ResponseController
	// open means that the request came over HTTP/2 or HTTP/3 and is treated as one without a body,
	// although its body had not ended.
	open    bool
	site    string
	status  int
	bytes   int64
	sent    *atomic.Uint64 // bytes of bodies, by the whole edge
	fields  http.Header    // added to every final response to a client
	changes []func(http.Header)
	plain   bool // the client came without TLS
	unsized bool // the answer is to a HEAD over HTTP/3
	whole   bool // the hit lane has sent the response, and closed the stream

	client   *client                 // nil if its connection is not limited
	gather   *gather                 // of the connection, over HTTP/1.1; otherwise nil
	body     *requestBody            // of the request; nil if it has none
	tunnel   func(net.Conn) net.Conn // makes a tunnel of a connection
	incoming io.Reader               // what the client sends into a WebSocket over HTTP/2; nil if it wants none
	hijacked bool                    // the connection has become a tunnel
	piece    int                     // largest number of bytes in one write
	holds    int                     // bytes of memory that a write holds, if more than it writes
	weight   int                     // of a write, in the load of the watchdog
	watchdog *writeWatchdog
	since    time.Time     // when the write under way began, or was aborted
	list     *list.List    // of the watchdog that holds it
	load     *int          // of that list
	place    *list.Element // in list, or nil; the watchdog's mu guards these four
	cache    httpcache.Status
	id       string // of a request that got an error page; in the access log
	timing   bool   // the response has Server-Timing
	began    time.Time

	pages func(status int, own bool) []byte // of the site, in place of the bodies of errors; nil for none
	isOwn bool                              // the response is an error of the edge itself
	page  []byte                            // is sent in place of the body; nil if the body is sent
}

// WriteHeader sends the header block of a final or an interim response.
func (r *Exchange) WriteHeader(status int) {
	if status == http.StatusContinue && r.body != nil && (r.body.proceed == nil || r.body.told.Swap(true)) {
		return // it is sent when the body is first read
	}
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.status = status
		h := r.Header()
		if r.body != nil {
			r.body.answer(h)
		}
		r.replaceError(status)
		if status >= 200 {
			r.addServerTiming(h)
		}
		if _, ok := h["Content-Type"]; !ok {
			h["Content-Type"] = nil // or net/http guesses one if it has a part of the body
		}
		if _, ok := h["Content-Length"]; !ok && r.unsized {
			h["Content-Length"] = nil // or quic-go sends 0
		}
		for name, lines := range r.fields {
			h[name] = lines
		}
		for _, change := range r.changes {
			change(h)
		}
		if r.plain {
			delete(h, "Strict-Transport-Security") // the origin's; it must not be sent without TLS (RFC 6797, 7.2)
		}
	}
	if status < 200 && status != http.StatusSwitchingProtocols { // it is sent at once
		r.weight = 1
		r.watchdog.begin(r, time.Now())
		defer r.watchdog.end(r)
	}
	r.ResponseWriter.WriteHeader(status)
	r.sendPage()
}

// Write sends a part of the body. It writes in pieces. The time limit for slow clients applies to
// each piece.
func (r *Exchange) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.page != nil {
		return len(p), nil
	}
	r.weight = weight(max(len(p), r.holds))
	total := 0
	for {
		part := p[total:min(len(p), total+r.piece)]
		r.watchdog.begin(r, time.Now())
		n, err := r.write(part)
		r.watchdog.end(r)
		r.bytes += int64(n)
		r.sent.Add(uint64(n))
		if total += n; err != nil || total == len(p) {
			return total, err
		}
	}
}

// write is Write for a piece. Over HTTP/1.1 it sends the first bytes of a body with the header
// block, in one write of the socket.
func (r *Exchange) write(p []byte) (int, error) {
	if r.gather == nil || r.bytes > 0 || len(p) < gatherFirst || len(p) > gatherMost {
		return r.ResponseWriter.Write(p)
	}
	r.gather.begin()
	n, err := r.ResponseWriter.Write(p)
	if err == nil && !r.gather.isEmpty() {
		err = r.control.Flush() // the rest goes with it
	}
	if e := r.gather.end(r.client.own.Conn); err == nil && e != nil {
		return 0, e
	}
	return n, err
}

// FlushError sends what was written so far. http.ResponseController calls it.
func (r *Exchange) FlushError() error {
	r.weight = 1
	r.watchdog.begin(r, time.Now())
	defer r.watchdog.end(r)
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// end limits the time for sending what the server still buffers when the handler returns. Over
// HTTP/1.1 that is the end of a body, or a small response as a whole. It waits if the client hasn't
// read earlier responses. net/http resets the deadline before the next request.
func (r *Exchange) end(within time.Duration) {
	if !r.whole {
		_ = r.control.SetWriteDeadline(time.Now().Add(within))
	}
}

// linger reads on for a client that still sends its body. Otherwise the client might not see the
// complete response.
func (r *Exchange) linger() {
	if r.Header()["Content-Length"] == nil && r.status != http.StatusNoContent && r.status != http.StatusNotModified {
		return // the end of the response is sent after the handler returns
	}
	if err := http.NewResponseController(r.ResponseWriter).Flush(); err == nil {
		r.body.linger()
	}
}

// Unwrap returns the ResponseWriter below, for http.ResponseController.
func (r *Exchange) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Outcome returns the label of the metrics for what the cache did.
func Outcome(st httpcache.Status) string {
	switch {
	case st.Hit && st.TTL <= 0:
		return "stale"
	case st.Hit:
		return "hit"
	case st.Collapsed:
		return "collapsed"
	case st.Forward == "stale":
		return "revalidated"
	case st.Forward != "" && st.Stored:
		return "miss"
	case st.Forward != "":
		return "pass"
	}
	return "none"
}

// Status returns the status that was sent, or 0 before that.
func (r *Exchange) Status() int { return r.status }

// Sent returns how many bytes of the body were sent.
func (r *Exchange) Sent() int64 { return r.bytes }

// Hijacked reports whether the connection has become a tunnel.
func (r *Exchange) Hijacked() bool { return r.hijacked }

// SetSite sets the site that the request is counted and logged for.
func (r *Exchange) SetSite(name string) { r.site = name }

// SetCache sets what the cache did. The request is counted and logged by it.
func (r *Exchange) SetCache(st httpcache.Status) { r.cache = st }

// Cache returns what SetCache set.
func (r *Exchange) Cache() httpcache.Status { return r.cache }

// SetField sets a field of the final response. It replaces the origin's.
func (r *Exchange) SetField(name, value string) {
	fields := maps.Clone(r.fields) // the map is shared
	if fields == nil {
		fields = http.Header{}
	}
	fields[name] = []string{value}
	r.fields = fields
}

// ChangeHeader calls change with the header of the final response before it is sent.
func (r *Exchange) ChangeHeader(change func(http.Header)) { r.changes = append(r.changes, change) }

// Secure reports whether the client's request came over TLS. For a request of a peer, the peer
// reports it.
func (r *Exchange) Secure() bool {
	if r.Peer {
		return r.Request.Header.Get("X-Forwarded-Proto") == "https"
	}
	return r.Request.TLS != nil
}
