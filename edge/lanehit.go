package edge

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// laneHit is a stored 200 of the RAM tier that is ready to be sent, to all clients of a site that
// come the same way (plain or TLS).
type laneHit struct {
	site     *Site
	entry    *entry
	head     []byte // status line and fields, but for those that change
	undated  bool   // it has no Date, so that it is sent with that of now (RFC 9110, 6.6.1)
	initial  time.Duration
	lifetime time.Duration
	full     *counters
	unsent   *counters // of a 304
	notHead  []byte    // what head is to a 304
}

// laneSite is what the requests of a connection have in common as long as they name the same host.
type laneSite struct {
	sites  *site.Set
	named  string // the Host field
	site   *Site  // nil if the lane can't answer for it
	origin string // scheme and authority
}

// laneSite finds the site of a Host field, on a connection with a TLS server name.
func (s *Server) laneSite(host []byte, secure bool, serverName string, last *laneSite) *laneSite {
	now := s.sites.Now()
	if last.sites == now && last.named == string(host) {
		return last
	}
	*last = laneSite{sites: now, named: string(host)}
	t := httpcache.Target{Secure: secure}
	var ok bool
	if t.Host, t.Port, ok = httpcache.ParseAuthority(last.named, secure); !ok {
		return last
	}
	site, _ := now.Find(t.Host)
	if site != nil && !now.ReachedBy(serverName, site) {
		site = nil // the ordinary path refuses it
	}
	if site != nil && !secure && site.Redirect && s.https != nil {
		site = nil // it may be sent to https
	}
	last.site, last.origin = site, t.Origin()
	return last
}

// findHit finds what answers a request at once, and the key of its URI; nil if that is for the
// ordinary path to find out. What it decides is what lookup decides for such a request.
func (s *Server) findHit(q *ask, at *laneSite, secure bool, now time.Time) (*laneHit, httpcache.Key) {
	if at.site == nil || !s.purger.Trusts() || s.purger.CutOff() {
		return nil, ""
	}
	var key httpcache.Key
	if i := bytes.IndexByte(q.target, '?'); i >= 0 && len(at.site.IgnoreQuery) > 0 {
		key = httpcache.KeyOf(at.origin, string(q.target[:i])+at.site.ReduceQuery(string(q.target[i:])))
	} else {
		key = httpcache.KeyOf(at.origin, string(q.target))
	}
	o := s.Store.Hot(string(key))
	if o == nil {
		return nil, ""
	}
	first := o
	r := recordOf(o)
	if r.variants != nil {
		v := httpcache.Select(r.variants, q.header(r.variants))
		if v == nil {
			return nil, ""
		}
		if o = s.Store.Hot(string(v.Key)); o == nil {
			return nil, ""
		}
		r = recordOf(o)
	}
	if r.response == nil {
		return nil, ""
	}
	way := &r.hits[0]
	if secure {
		way = &r.hits[1]
	}
	h := way.Load()
	if h == nil || h.site != at.site {
		if h = s.newLaneHit(&entry{o, *r.response}, at.site, secure); h == nil {
			return nil, ""
		}
		way.Store(h)
	}
	if _, ttl := h.fresh(now); ttl <= 0 {
		return nil, ""
	}
	first.Hit()
	if o != first {
		o.Hit()
	}
	return h, key
}

// header has the fields that variants are selected by.
func (q *ask) header(variants []httpcache.Variant) http.Header {
	h := http.Header{}
	for _, v := range variants {
		for _, f := range v.Fields {
			q.copyTo(h, f.Name)
		}
	}
	return h
}

// copyTo copies the lines of a field, whose name is in canonical form.
func (q *ask) copyTo(h http.Header, name string) {
	if h[name] != nil {
		return
	}
	for _, f := range q.fields[:q.count] {
		if len(f.name) == len(name) && bytes.EqualFold(f.name, []byte(name)) {
			h[name] = append(h[name], string(f.value))
		}
	}
}

// first is the first line of a field, whose name is in any form.
func (q *ask) first(name string) string {
	for _, f := range q.fields[:q.count] {
		if len(f.name) == len(name) && bytes.EqualFold(f.name, []byte(name)) {
			return string(f.value)
		}
	}
	return ""
}

// newLaneHit renders an entry; nil if it is not one for the lane: that are those which are sent as
// they are until they are stale.
func (s *Server) newLaneHit(e *entry, site *Site, secure bool) *laneHit {
	if e.Status != http.StatusOK || e.size >= 0 || e.object.Body() == nil || len(e.Unvalidated()) > 0 || e.Header["Trailer"] != nil {
		return nil
	}
	h := &laneHit{site: site, entry: e, initial: e.Age(e.ResponseTime), undated: e.Header["Date"] == nil}
	now := time.Now()
	d := site.Policy.Decide(httpcache.Directives{}, e.Stored, false, now)
	if d.Action != httpcache.Serve || d.TTL <= 0 {
		return nil
	}
	h.lifetime = d.TTL + d.Age
	fields := http.Header{}
	x := &exchange{}
	x.setHeader(fields, e.Stored)
	delete(fields, "Age")
	delete(fields, "Cache-Status")
	if !secure {
		delete(fields, "Strict-Transport-Security")
	} else {
		for name, lines := range s.altSvc {
			fields[name] = lines
		}
		if site.HSTS != "" {
			fields["Strict-Transport-Security"] = []string{site.HSTS}
		}
	}
	render := func(status int) []byte {
		var b bytes.Buffer
		b.WriteString("HTTP/1.1 " + strconv.Itoa(status) + " " + http.StatusText(status) + "\r\n")
		_ = fields.Write(&b)
		return slices.Clip(b.Bytes())
	}
	whole := []httpcache.Range{{Length: e.length()}}
	hit := (&recorder{cache: httpcache.Status{Hit: true, TTL: 1}}).outcome()
	setPart(fields, http.StatusOK, whole, e.length())
	h.head, h.full = render(http.StatusOK), s.metrics.counters(site.Name, http.StatusOK, hit)
	setPart(fields, http.StatusNotModified, whole, e.length())
	h.notHead, h.unsent = render(http.StatusNotModified), s.metrics.counters(site.Name, http.StatusNotModified, hit)
	return h
}

// fresh returns how old the response is now, and for how long it is fresh.
func (h *laneHit) fresh(now time.Time) (age, ttl time.Duration) {
	age = max(0, h.initial+now.Sub(h.entry.ResponseTime))
	return age, h.lifetime - age
}

// notModified reports whether the answer to a conditional request is 304.
func (h *laneHit) notModified(q *ask) bool {
	if !q.conditional {
		return false
	}
	conditions := http.Header{}
	q.copyTo(conditions, "If-None-Match")
	q.copyTo(conditions, "If-Modified-Since")
	return h.entry.NotModified(conditions)
}

// appendHead appends the header block of an answer.
func (h *laneHit) appendHead(b []byte, notModified bool, name string, key httpcache.Key, now time.Time) []byte {
	if notModified {
		b = append(b, h.notHead...)
	} else {
		b = append(b, h.head...)
	}
	age, ttl := h.fresh(now)
	b = append(b, "Age: "...)
	b = strconv.AppendInt(b, int64(age/time.Second), 10)
	b = append(b, "\r\nCache-Status: "...)
	b = httpcache.Status{Hit: true, TTL: ttl, HasTTL: true, Key: key}.Append(b, name)
	if h.undated {
		b = append(b, "\r\nDate: "...)
		b = now.UTC().AppendFormat(b, http.TimeFormat)
	}
	return append(b, "\r\n\r\n"...)
}

// record is what an object's data says, and for the RAM tier what became of it.
type record struct {
	response *response                  // nil if it is malformed, or a list of variants
	variants []httpcache.Variant        // nil if it is none
	hits     [2]atomic.Pointer[laneHit] // plain, TLS
}

func recordOf(o *storage.Object) *record {
	return o.Memo(func() any {
		r := &record{}
		if key := httpcache.Key(o.Key()); isVariants(o.Data()) {
			r.variants, _ = decodeVariants(key, o.Data())
		} else {
			r.response, _ = decodeResponse(key, o.Data())
		}
		return r
	}).(*record)
}
