package cache

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/storage"
)

// The edge codes stored responses for its clients, and stores what it makes: for each coding, the
// coded body is an object of its own beside the stored response. It has no header. It is used only
// in place of the body from which it was made: a request first selects a stored response, which is
// checked for purges and freshness, and only then a coded body that names the body of just that
// response (boundTo). So purges, validations and newer responses need not know of coded bodies. A
// 304 of the origin updates the header and leaves the body, so coded bodies stay; a new response
// has a new body, so they are of no use from then on.
//
// A coded body that is empty says that coding is not worth it.

// codedPrefix begins the data of a coded body. The rest is the id of the body from which it was
// made, in decimal.
const codedPrefix = "coded 1 "

func encodeCoded(of uint64) []byte { return strconv.AppendUint([]byte(codedPrefix), of, 10) }

// decodeCoded returns the id that encodeCoded wrote.
func decodeCoded(data []byte) (of uint64, ok bool) {
	text, ok := strings.CutPrefix(string(data), codedPrefix)
	if !ok {
		return 0, false
	}
	of, err := strconv.ParseUint(text, 10, 64)
	return of, err == nil
}

// boundTo reports whether o is a coded body that was made from the body of a response.
func boundTo(o, response *storage.Object) bool {
	r := recordOf(o)
	return r.coded && r.codedOf == response.BodyID()
}

// mayCode reports whether clients may get a response coded by this edge, now or later. size is that
// of its body; -1 means unknown. Other edges get it as it is stored, and code it themselves.
func (x *exchange) mayCode(s *httpcache.Stored, size int64) bool {
	c := x.site.Compress
	return c != nil && !x.peer && c.Codable(s, size)
}

// prepareCoding reads from the request what the client accepts, before its fields are changed.
func (x *exchange) prepareCoding() {
	if x.site.Compress == nil || x.peer {
		return
	}
	x.codings = x.site.Compress.Accepted(x.r.Header["Accept-Encoding"])
	httpcache.RemoveCodedTags(x.r.Header)
}

// dropDatedRange makes a request for a part one for the whole, if the client may have a part of the
// coded body and can't tell: it names the response by a date.
func (x *exchange) dropDatedRange(s *httpcache.Stored, size int64) {
	if httpcache.HasDatedRange(x.r.Header) && x.mayCode(s, size) {
		delete(x.r.Header, "Range")
		delete(x.r.Header, "If-Range")
	}
}

// code makes a reply one with the best coded body that the client accepts and the edge has. The
// reply to a request for a part has the body as it is: only of that does each edge have the same
// bytes. A client that has another form of the response gets a 304 for that.
func (s *Cache) code(x *exchange, a *reply) {
	if !x.mayCode(a.stored, a.size) {
		return
	}
	stored := a.stored
	a.stored = stored.VariedByCoding()
	ranged := x.r.Method == http.MethodGet && len(x.r.Header["Range"]) > 0
	if a.entry != nil && !ranged {
		if o, coding := s.codedBody(x, a.entry); o != nil {
			a.stored, a.content, a.size = stored.Coded(coding), &objectContent{object: o}, o.Size()
		}
	}
	if len(x.r.Header["If-None-Match"]) == 0 || a.stored.NotModified(x.r.Header) {
		return
	}
	for _, coding := range x.codings {
		if c := stored.Coded(coding); c.NotModified(x.r.Header) {
			a.stored = c
			return
		}
	}
	if stored.NotModified(x.r.Header) {
		a.stored = stored.VariedByCoding()
	}
}

// codedBody returns the best stored coded body for a client, and its coding. It returns nil if
// there is none. It has the best one made that the client accepts.
func (s *Cache) codedBody(x *exchange, e *entry) (*storage.Object, string) {
	of := httpcache.Key(e.object.Key())
	for i, coding := range x.codings {
		o := s.Store.Get(string(of.Coding(coding)))
		bound := o != nil && boundTo(o, e.object)
		if i == 0 && (!bound || o.Stale && !e.object.Stale) {
			s.coder.add(codingJob{of: of, coding: coding, config: x.site.Compress})
		}
		if bound {
			if o.Size() == 0 {
				return nil, ""
			}
			return o, coding
		}
	}
	return nil, ""
}

// varyByCoding adds Accept-Encoding to the Vary of a response to a HEAD, where the response to a
// GET would have it.
func (x *exchange) varyByCoding(resp *http.Response) {
	s := &httpcache.Stored{Status: resp.StatusCode, Header: resp.Header}
	if x.mayCode(s, resp.ContentLength) {
		resp.Header["Vary"] = s.VariedByCoding().Header["Vary"]
	}
}
