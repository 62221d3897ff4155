package cache

import (
	"bytes"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// laneHit is a stored 200 of the RAM tier that is ready to be sent to all clients of a site that
// use the same protocol.
type laneHit struct {
	site     *site.Site
	of       *httpcache.Stored // the stored fields that it was rendered from
	codable  bool              // the client may get a coded body in place of this one
	entry    *entry
	form     headForm
	head     []byte // status line and fields, except for fields that change
	undated  bool   // it has no Date, so it is sent with the present time (RFC 9110, 6.6.1)
	initial  time.Duration
	lifetime time.Duration
	full     *front.Counters
	unsent   *front.Counters // of a 304
	partial  *front.Counters // of a 206
	notHead  []byte          // head for a 304
	partHead []byte          // head for a 206, without the fields that describe the part
	priority string          // value of the field Priority
}

// laneSite is what the requests of a connection share while they have the same Host.
type laneSite struct {
	sites  *site.Set
	named  string // the Host field
	host   string
	site   *site.Site // nil if the lane can't serve it
	origin string     // scheme and authority

	// accept is the Accept-Encoding of the last request for a site with Compress, and codings are
	// the codings of the site that it accepts.
	accept  string
	codings []string
}

// Hits finds the responses that the hit lane sends.
type Hits struct {
	*Cache
	Metrics *front.Metrics
	AltSvc  http.Header // a field of responses over TLS; nil for none
	Secure  bool        // there is a listener for TLS
}

// siteOf returns the site of a Host field. It remembers the last one of each connection.
func (s *Hits) siteOf(host []byte, c *front.Conn) *laneSite {
	now := s.Sites.Now()
	last, _ := c.Memo.(*laneSite)
	if last != nil && last.sites == now && last.named == string(host) {
		return last
	}
	at := &laneSite{sites: now, named: string(host)}
	c.Memo = at
	t := httpcache.Target{Secure: c.Secure}
	var ok bool
	if t.Host, t.Port, ok = httpcache.ParseAuthority(at.named, c.Secure); !ok {
		return at
	}
	site, _ := now.Find(t.Host)
	if site != nil && !now.ReachedBy(c.ServerName, site) {
		site = nil // the ordinary path refuses it
	}
	if site != nil && !c.Secure && site.Redirect && s.Secure {
		site = nil // it may be sent to https
	}
	at.site, at.origin, at.host = site, t.Origin(), t.Host
	return at
}

// keyOf returns the key of a request, and the site with the rules applied that match the request.
// It reports false if the lane can't apply the rules.
func (at *laneSite) keyOf(q *front.Request, c *front.Conn, now time.Time) (of *site.Site, key httpcache.Key, ok bool) {
	i := bytes.IndexByte(q.Target, '?')
	if i < 0 {
		i = len(q.Target)
	}
	if at.site.Rules.Len() > 0 {
		r := &rules.Request{Method: http.MethodGet, Secure: c.Secure, Host: at.host, Path: string(q.Target[:i]),
			Query: string(q.Target[i:]), Protocol: max(1, c.Major), Now: now}
		if at.site.Rules.ByOrigin() {
			_, lines := q.Lines("Origin")
			r.CrossOrigin = lines > 0
		}
		return at.underRules(r, q.Head)
	}
	if i < len(q.Target) && at.site.ReducesQuery() {
		return at.site, httpcache.KeyOf(at.origin, string(q.Target[:i])+at.site.ReduceQuery(string(q.Target[i:]))), true
	}
	return at.site, httpcache.KeyOf(at.origin, string(q.Target)), true
}

func (at *laneSite) underRules(r *rules.Request, head bool) (*site.Site, httpcache.Key, bool) {
	if head {
		r.Method = http.MethodHead
	}
	var o rules.Outcome
	if !at.site.Rules.Static(r, &o) || o.Cache.Bypass || len(o.Request) > 0 {
		return nil, "", false
	}
	of := at.site.Under(&o)
	mark, ok := of.StaticMark()
	return of, httpcache.KeyOf(at.origin, o.Path+of.ReduceQuery(o.Query)).With(mark), ok
}

// Find finds a response that can be sent at once. It reports false if the request has to go the
// ordinary way. For the requests that Find answers, lookup decides alike.
func (s *Hits) Find(q *front.Request, c *front.Conn, now time.Time, to *front.Hit) bool {
	at := s.siteOf(q.Host, c)
	if at.site == nil || !s.Purger.Trusts() || s.Purger.CutOff() {
		return false
	}
	of, key, ok := at.keyOf(q, c, now)
	if !ok {
		return false
	}
	first := s.Store.Hot(string(key))
	if first == nil {
		return false
	}
	o := first
	r := recordOf(o)
	if r.variants != nil {
		v := httpcache.Select(r.variants, selecting(q, r.variants))
		if v == nil {
			return false
		}
		if o = s.Store.Hot(string(v.Key)); o == nil {
			return false
		}
		r = recordOf(o)
	}
	h := s.rendered(r, o, r.response, "", of, c)
	if h == nil {
		return false
	}
	if _, ttl := h.fresh(now); ttl <= 0 {
		return false
	}
	body := o
	if h.codable {
		if h = s.coded(h, q, c); h == nil {
			return false
		}
		body = h.entry.object
	}
	if !h.fill(q, to, s.Name, key, now) {
		return false
	}
	first.Hit()
	if o != first {
		o.Hit()
	}
	if body != o {
		body.Hit()
	}
	return true
}

// rendered returns a response as rendered for the clients of a site that use the protocol of a
// connection. It returns nil if the response is not for the lane. o has the body, and r is its
// record. of is the stored response, and coding is the content coding of the body by this edge.
func (s *Hits) rendered(r *record, o *storage.Object, of *response, coding string, site *site.Site,
	c *front.Conn) *laneHit {
	if of == nil {
		return nil
	}
	way := &r.hits[0]
	var form headForm = textForm{}
	switch {
	case c.Major == 3:
		way, form = &r.hits[3], qpackForm{}
	case c.Major == 2:
		way, form = &r.hits[2], hpackForm{}
	case c.Secure:
		way = &r.hits[1]
	}
	h := way.Load()
	if h == nil || h.site != site || h.of != of.Stored {
		e := &entry{o, *of}
		if coding != "" {
			e.Stored = of.Coded(coding)
		}
		if h = s.newLaneHit(e, site, c, form); h != nil {
			h.of = of.Stored
			way.Store(h)
		}
	}
	return h
}

// fill fills in the response to a request. It reports false if net/http has to serve the request:
// the body is gone, or the request has several ranges or one that can't be satisfied.
func (h *laneHit) fill(q *front.Request, to *front.Hit, name string, key httpcache.Key, now time.Time) bool {
	o := h.entry.object
	to.Body, to.File, to.Site, to.Priority = nil, nil, h.site.Name, h.priority
	part := httpcache.Range{Length: o.Size()}
	switch {
	case h.notModified(q):
		to.Status, to.Counters = http.StatusNotModified, h.unsent
		to.Head = append(to.Head, h.notHead...)
	case q.Range != nil && !q.Head:
		ranges, ok := httpcache.ParseRanges(string(q.Range), o.Size())
		if !ok || len(ranges) != 1 {
			return false
		}
		part = ranges[0]
		to.Status, to.Counters = http.StatusPartialContent, h.partial
		to.Head = h.form.appendPart(append(to.Head, h.partHead...), part, o.Size())
	default:
		to.Status, to.Counters = http.StatusOK, h.full
		to.Head = append(to.Head, h.head...)
	}
	to.Head = h.appendChanging(to.Head, name, key, now)
	switch body := o.Body(); {
	case q.Head || to.Status == http.StatusNotModified:
	case body != nil:
		to.Body = body[part.Start : part.Start+part.Length]
	default:
		r, err := o.Open(part.Start, part.Length)
		if err != nil {
			return false
		}
		to.File = r
	}
	return true
}

// selecting returns the request fields by which the variants are selected.
func selecting(q *front.Request, variants []httpcache.Variant) http.Header {
	h := http.Header{}
	for _, v := range variants {
		for _, f := range v.Fields {
			q.CopyTo(h, f.Name)
		}
	}
	return h
}

// newLaneHit renders an entry. It returns nil if the entry is not for the lane, which only has
// responses that are sent unchanged until they are stale.
func (s *Hits) newLaneHit(e *entry, site *site.Site, c *front.Conn, form headForm) *laneHit {
	if e.Status != http.StatusOK || e.size >= 0 || len(e.Unvalidated()) > 0 || e.Header["Trailer"] != nil {
		return nil
	}
	h := &laneHit{site: site, entry: e, form: form, initial: e.Age(e.ResponseTime), undated: e.Header["Date"] == nil}
	now := time.Now()
	d := site.Policy.Decide(httpcache.Directives{}, e.Stored, false, now)
	if d.Action != httpcache.Serve || d.TTL <= 0 {
		return nil
	}
	h.lifetime = d.TTL + d.Age
	fields := http.Header{}
	x := &exchange{}
	x.setHeader(fields, e.Stored)
	if h.codable = site.Compress != nil && site.Compress.Codable(e.Stored, e.length()); h.codable {
		fields["Vary"] = e.VariedByCoding().Header["Vary"]
	}
	delete(fields, "Age")
	delete(fields, "Cache-Status")
	if !c.Secure {
		delete(fields, "Strict-Transport-Security")
	} else {
		if c.Major < 3 {
			for name, lines := range s.AltSvc {
				fields[name] = lines
			}
		}
		if site.HSTS != "" {
			fields["Strict-Transport-Security"] = []string{site.HSTS}
		}
	}
	if site.ServerTiming {
		fields["Server-Timing"] = []string{front.LaneTiming}
	}
	for _, change := range site.Fields {
		change.Apply(fields)
	}
	h.priority = strings.Join(fields["Priority"], ", ")
	render := func(status int) []byte { return form.render(status, fields) }
	whole := []httpcache.Range{{Length: e.length()}}
	hit := front.Outcome(httpcache.Status{Hit: true, TTL: 1})
	setPart(fields, http.StatusOK, whole, e.length())
	h.head, h.full = render(http.StatusOK), s.Metrics.Counters(site.Name, http.StatusOK, hit)
	delete(fields, "Content-Length")
	h.partHead, h.partial = render(http.StatusPartialContent), s.Metrics.Counters(site.Name, http.StatusPartialContent,
		hit)
	setPart(fields, http.StatusNotModified, whole, e.length())
	h.notHead, h.unsent = render(http.StatusNotModified), s.Metrics.Counters(site.Name, http.StatusNotModified, hit)
	return h
}

// fresh returns the age of the response, and for how long it is still fresh.
func (h *laneHit) fresh(now time.Time) (age, ttl time.Duration) {
	age = max(0, h.initial+now.Sub(h.entry.ResponseTime))
	return age, h.lifetime - age
}

// notModified reports whether the response to a conditional request is 304.
func (h *laneHit) notModified(q *front.Request) bool {
	if !q.Conditional {
		return false
	}
	conditions := http.Header{}
	q.CopyTo(conditions, "If-None-Match")
	q.CopyTo(conditions, "If-Modified-Since")
	return h.entry.NotModified(conditions)
}

// appendChanging appends the fields that change, which end the header block.
func (h *laneHit) appendChanging(b []byte, name string, key httpcache.Key, now time.Time) []byte {
	age, ttl := h.fresh(now)
	var date time.Time
	if h.undated {
		date = now
	}
	return h.form.appendLast(b, age, httpcache.Status{Hit: true, TTL: ttl, HasTTL: true, Key: key}, name, date)
}

// record is the decoded data of an object and, for the RAM tier, its rendered responses.
type record struct {
	response *response                  // nil if it is malformed, a list of variants, or a coded body
	variants []httpcache.Variant        // nil if it is none
	coded    bool                       // a coded body
	codedOf  uint64                     // the body from which it was made
	hits     [4]atomic.Pointer[laneHit] // plain, TLS, HTTP/2, HTTP/3
}

func recordOf(o *storage.Object) *record {
	return o.Memo(func() any {
		r := &record{}
		if key := httpcache.Key(o.Key()); isVariants(o.Data()) {
			r.variants, _ = decodeVariants(key, o.Data())
		} else if r.codedOf, r.coded = decodeCoded(o.Data()); !r.coded {
			r.response, _ = decodeResponse(key, o.Data())
		}
		return r
	}).(*record)
}
