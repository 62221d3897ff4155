package cache

import (
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// Explanation is the response to GET /v1/explain: what the edge knows of a URL.
type Explanation struct {
	URL     string      `json:"url"`
	Key     string      `json:"key"`
	Objects []Explained `json:"objects"` // several if the URL has variants
	// Rules are the site's rules that match a GET of the URL without fields, in their order.
	Rules []string `json:"rules,omitempty"`
	// Origin is the name of the origin that a rule chose, or "".
	Origin string `json:"origin,omitempty"`
	// Bucket says from which bucket misses are fetched, if the origin is one.
	Bucket string `json:"bucket,omitempty"`
	// Limits describe the rate limits that count the request.
	Limits []string `json:"limits,omitempty"`
	// WhyNot is the reason why nothing is stored, or "".
	WhyNot string `json:"why_not,omitempty"`
	// LastFailure is the failure of the last fetch of the URL. It is nil if the fetch succeeded, or
	// if many other URLs have failed since.
	LastFailure *origin.Failure `json:"last_failure,omitempty"`
	// Servers are the servers from which the site's misses are fetched.
	Servers []origin.ServerStatus `json:"servers"`
}

// Explained is one stored response. Durations are in seconds.
type Explained struct {
	Key      string            `json:"key"`
	Variant  map[string]string `json:"variant,omitempty"` // request fields that select it, normalised
	Status   int               `json:"status"`
	Size     int64             `json:"size"`     // bytes of the representation
	Have     int64             `json:"have"`     // stored bytes of the representation
	Stored   time.Time         `json:"stored"`   // when it was stored, or its metadata was updated
	Age      int64             `json:"age"`      // RFC 9111, 4.2.3
	Lifetime int64             `json:"lifetime"` // freshness lifetime
	// Source is what sets the lifetime: s-maxage, max-age, Expires, default_ttl, or heuristic.
	Source    string   `json:"source,omitempty"`
	Hint      string   `json:"hint,omitempty"`   // how to have a lifetime, where it has none
	TTL       int64    `json:"ttl"`              // negative once stale
	Purged    bool     `json:"purged,omitempty"` // by a soft purge
	Validator string   `json:"validator,omitempty"`
	Tags      []string `json:"tags,omitempty"`
	// Codings are the codings of the body by the edge, for sites with compress. NotCoded is why
	// there are none, or "".
	Codings  []ExplainedCoding `json:"codings,omitempty"`
	NotCoded string            `json:"not_coded,omitempty"`
	Segment  uint32            `json:"segment"`
	Memory   bool              `json:"memory"` // in the RAM tier
}

// ExplainedCoding is a coding of a stored response by the edge.
type ExplainedCoding struct {
	Coding string `json:"coding"`
	Size   int64  `json:"size,omitempty"` // bytes of the coded body; 0 if there is none
	State  string `json:"state"`          // stored, waits, "hardly smaller", "not requested", or an error
}

// explainCodings returns the codings of a stored response, or why there are none.
func (s *Cache) explainCodings(site *site.Site, e *entry) (codings []ExplainedCoding, whyNot string) {
	if site.Compress == nil {
		return nil, ""
	}
	if whyNot = site.Compress.WhyNot(e.Stored, e.length()); whyNot == "" && e.size >= 0 {
		whyNot = "only parts of it are stored"
	}
	if whyNot != "" {
		return nil, whyNot
	}
	for _, coding := range site.Compress.Codings() {
		x := ExplainedCoding{Coding: coding}
		key := httpcache.Key(e.object.Key()).Coding(coding)
		switch o := s.Store.Get(string(key)); {
		case o != nil && boundTo(o, e.object) && o.Size() > 0:
			x.State, x.Size = "stored", o.Size()
		case o != nil && boundTo(o, e.object):
			x.State = "hardly smaller"
		default:
			x.State = s.coder.state(key)
		}
		codings = append(codings, x)
	}
	return codings, ""
}

// Explain returns what the cache knows of a target of a site.
func (s *Cache) Explain(url string, t httpcache.Target, of *site.Site) Explanation {
	mark, _ := of.KeyMark(nil)
	key := of.Reduce(t).Key().With(mark)
	e := Explanation{URL: url, Key: string(key), Objects: s.explain(of, key)}
	e.LastFailure = s.LastFailure(key)
	e.Servers = of.Origin.Origin.Status().Servers
	e.Origin = of.OriginName
	if b := of.Bucket(); b != nil {
		e.Bucket = b.String()
	}
	if len(e.Objects) == 0 {
		e.WhyNot = s.WhyNot(key)
		switch {
		case e.LastFailure != nil: // a response would have removed it
			e.WhyNot = "the last fetch from the origin failed"
		case e.WhyNot == "":
			e.WhyNot = "not requested in the last two minutes, or purged, or evicted " +
				"(HEAD stores nothing; give the URL as clients request it, with host and port)"
		}
	}
	return e
}

// WhyNot returns why the last response of a key was not stored, or "" if that is unknown.
func (s *Cache) WhyNot(key httpcache.Key) string { return s.objects.pass.Get(string(key), time.Now()) }

func (s *Cache) explain(site *site.Site, key httpcache.Key) []Explained {
	o := s.Store.Get(string(key))
	if o == nil {
		return nil
	}
	if !isVariants(o.Data()) {
		return s.explainEntry(site, s.objects.open(o), nil)
	}
	variants, _ := decodeVariants(key, o.Data()) // a malformed list has none
	var out []Explained
	for _, v := range variants {
		if o := s.Store.Get(string(v.Key)); o != nil {
			out = append(out, s.explainEntry(site, s.objects.open(o), v.Fields)...)
		}
	}
	return out
}

func (s *Cache) explainEntry(site *site.Site, e *entry, fields []httpcache.VaryField) []Explained {
	if e == nil {
		return nil
	}
	d := site.Policy.Decide(httpcache.Directives{}, e.Stored, e.object.Stale, time.Now())
	lifetime := e.Lifetime(site.Policy)
	x := Explained{
		Key: e.object.Key(), Status: e.Status, Size: e.length(), Have: e.object.Size(), Stored: e.object.Stored(),
		Age: int64(d.Age / time.Second), Lifetime: int64(lifetime.D / time.Second), Source: lifetime.Source,
		Hint: lifetimeHint(e, lifetime), TTL: int64(d.TTL / time.Second), Purged: e.object.Stale,
		Validator: e.StrongValidator(),
		Segment:   e.object.Segment(), Memory: e.object.InMemory(),
	}
	x.Codings, x.NotCoded = s.explainCodings(site, e)
	for _, f := range e.fragments {
		x.Have += f.Length
	}
	for _, t := range e.object.Tags() {
		if !strings.HasPrefix(t, "\x00") {
			x.Tags = append(x.Tags, t)
		}
	}
	for _, f := range fields {
		if x.Variant == nil {
			x.Variant = map[string]string{}
		}
		x.Variant[f.Name] = f.Value
	}
	return []Explained{x}
}

// lifetimeHint returns how to give a response a lifetime, if it has no explicit one and the
// heuristic lifetime is close to zero.
func lifetimeHint(e *entry, l httpcache.Lifetime) string {
	if cc, _ := httpcache.ResponseDirectives(e.Header); l.Explicit || l.D >= time.Second || cc.NoCache {
		return ""
	}
	return "make the origin send Cache-Control: max-age=…, or set cache.default_ttl of the site in a fleet file"
}
