package front

import (
	"container/list"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// Exchange is one request of a client, or of another edge, and the answer to it: a ResponseWriter
// that remembers what is counted, and gives slow clients up.
type Exchange struct {
	http.ResponseWriter
	Request *http.Request
	Target  httpcache.Target // what the request is for
	Peer    bool             // it came from another edge of the fleet, which is trusted

	server  *Server // nil for what is no request
	control *http.ResponseController
	// open says that the body of a request over HTTP/2 or HTTP/3 had not ended when it was taken as
	// one without a body.
	open    bool
	site    string
	status  int
	bytes   int64
	sent    *atomic.Uint64 // by the whole edge
	fields  http.Header    // that every final response of the edge to a client has
	changes []func(http.Header)
	plain   bool // the client came without TLS
	unsized bool // the answer is to a HEAD over HTTP/3

	client   *client                 // nil if its connection is not limited
	body     *requestBody            // of the request; nil without one
	tunnel   func(net.Conn) net.Conn // makes one of a connection
	hijacked bool                    // it is one
	piece    int                     // bytes that are written at once
	holds    int                     // bytes of memory that a write holds beyond what it writes
	weight   int                     // of what is written, among senders
	senders  *senders
	since    time.Time     // when the write that is under way began, or was given up
	list     *list.List    // of senders that it is in
	load     *int          // of that list
	place    *list.Element // in that, nil if it is in none; all four are guarded by senders.mu
	cache    httpcache.Status
}

// WriteHeader sends the header block of a response, interim or final.
func (r *Exchange) WriteHeader(status int) {
	if status == http.StatusContinue && r.body != nil && (r.body.proceed == nil || r.body.told.Swap(true)) {
		return // the client is told when the body is read
	}
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.status = status
		h := r.Header()
		if r.body != nil {
			r.body.answer(h)
		}
		if _, ok := h["Content-Type"]; !ok {
			h["Content-Type"] = nil // or net/http guesses one, if it has some of the body already
		}
		if _, ok := h["Content-Length"]; !ok && r.unsized {
			h["Content-Length"] = nil // or quic-go says that it is 0
		}
		for name, lines := range r.fields {
			h[name] = lines
		}
		for _, change := range r.changes {
			change(h)
		}
		if r.plain {
			delete(h, "Strict-Transport-Security") // of the origin's; it must not be sent without TLS (RFC 6797, 7.2)
		}
	}
	if status < 200 && status != http.StatusSwitchingProtocols { // it is sent at once
		r.weight = 1
		r.senders.begin(r, time.Now())
		defer r.senders.end(r)
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body, in pieces that slow clients are given up by.
func (r *Exchange) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	r.weight = weight(max(len(p), r.holds))
	total := 0
	for {
		part := p[total:min(len(p), total+r.piece)]
		r.senders.begin(r, time.Now())
		n, err := r.ResponseWriter.Write(part)
		r.senders.end(r)
		r.bytes += int64(n)
		r.sent.Add(uint64(n))
		if total += n; err != nil || total == len(p) {
			return total, err
		}
	}
}

// FlushError sends what was written; http.ResponseController calls it.
func (r *Exchange) FlushError() error {
	r.weight = 1
	r.senders.begin(r, time.Now())
	defer r.senders.end(r)
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// end bounds the time for what the server has not sent yet when the handler returns. With HTTP/1.1
// that is the end of a body, or all of a small response, and waits where a client reads nothing of
// those before; net/http takes the deadline back before the next request.
func (r *Exchange) end(within time.Duration) {
	_ = r.control.SetWriteDeadline(time.Now().Add(within))
}

// linger lets a client that still sends its body see an answer that it has whole.
func (r *Exchange) linger() {
	if r.Header()["Content-Length"] == nil && r.status != http.StatusNoContent && r.status != http.StatusNotModified {
		return // its end is not sent before the handler returns
	}
	if err := http.NewResponseController(r.ResponseWriter).Flush(); err == nil {
		r.body.linger()
	}
}

// Unwrap gives http.ResponseController the writer below.
func (r *Exchange) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Outcome is the label that says what the cache did.
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

// Status is the status that was sent, or 0 before that.
func (r *Exchange) Status() int { return r.status }

// Sent is how many bytes of the body were sent.
func (r *Exchange) Sent() int64 { return r.bytes }

// Hijacked reports whether the connection is no HTTP any more.
func (r *Exchange) Hijacked() bool { return r.hijacked }

// SetSite notes the site that the request is counted and logged for.
func (r *Exchange) SetSite(name string) { r.site = name }

// SetCache notes what the cache did, by which the request is counted and logged.
func (r *Exchange) SetCache(st httpcache.Status) { r.cache = st }

// Cache is what was noted by SetCache.
func (r *Exchange) Cache() httpcache.Status { return r.cache }

// SetField has every final response say something, also in place of what an origin says.
func (r *Exchange) SetField(name, value string) {
	fields := maps.Clone(r.fields) // which others share
	if fields == nil {
		fields = http.Header{}
	}
	fields[name] = []string{value}
	r.fields = fields
}

// ChangeHeader has change called with the header of the final response before it is sent.
func (r *Exchange) ChangeHeader(change func(http.Header)) { r.changes = append(r.changes, change) }

// Secure reports whether the client's request came over TLS. A peer tells.
func (r *Exchange) Secure() bool {
	if r.Peer {
		return r.Request.Header.Get("X-Forwarded-Proto") == "https"
	}
	return r.Request.TLS != nil
}
