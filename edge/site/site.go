package site

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kaiku-cdn/kaiku/edge/compress"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Site is what an edge serves under some hosts.
type Site struct {
	Name string
	// Hosts are in lower case and without port. *.NAME covers each name one label below NAME that
	// no site names itself. No hosts means any host; then this is the only site.
	Hosts       []string
	Origin      *origin.Route
	Policy      httpcache.Policy
	MaxObject   int64    // bytes of the largest representation that is stored; 0 means no limit of its own
	Slice       int64    // a range of what is not stored is fetched in slices of so many bytes; 0 means 8 MiB
	IgnoreQuery []string // globs over the names of query parameters that are not part of the key
	// PassFields are request fields, in canonical form, that pass from clients to the origin even
	// though a client can use them to impersonate others.
	PassFields []string
	Redirect   bool   // plain HTTP is redirected to https://, if the edge has a listener for that
	HSTS       string // value of Strict-Transport-Security in responses over TLS; "" means none
	Rules      *rules.Set
	Compress   *compress.Config // which responses the edge codes for clients; nil means none

	// Under sets Bypass and Fields. Bypass means that requests pass to the origin without the
	// cache. Fields are changes to the header fields of responses.
	Bypass bool
	Fields []*rules.Fields

	ServerTiming bool // responses tell what the cache did and how long the edge took
	// EarlyHints means that browsers get the links of a page before the edge waits for the origin.
	EarlyHints bool

	// Origins are further origins, by name, that rules choose. OriginName is the name of Origin, if
	// that is one of them. KeyRule is what a rule says of the key, or nil.
	Origins    map[string]*origin.Route
	OriginName string
	KeyRule    *rules.Key

	// Country returns the country of a client for rules, or "". nil means that no rule needs it.
	Country func(netip.Addr) string

	mark string // the result of KeyMark, unless that depends on the request

	known *known
}

// maxKnown bounds how many outcomes of its rules a site keeps a Site for.
const maxKnown = 256

// known holds the Sites that Under has returned, by the shape of the outcome.
type known struct {
	sites atomic.Pointer[map[uint64]*Site]
	mu    sync.Mutex // held while sites is replaced
}

// find returns the Site of a shape, or nil.
func (k *known) find(shape uint64) *Site {
	if all := k.sites.Load(); all != nil {
		return (*all)[shape]
	}
	return nil
}

// add records a Site for a shape, unless there is one. It returns the recorded one.
func (k *known) add(shape uint64, s *Site) *Site {
	k.mu.Lock()
	defer k.mu.Unlock()
	if first := k.find(shape); first != nil {
		return first
	}
	all := map[uint64]*Site{shape: s}
	if before := k.sites.Load(); before != nil && len(*before) < maxKnown {
		maps.Copy(all, *before)
	}
	k.sites.Store(&all)
	return s
}

// Under returns the site as an outcome of its rules changes it. It returns the same Site for the
// same outcome, so that what was rendered for that can be used again.
func (s *Site) Under(o *rules.Outcome) *Site {
	if o.Shape == 0 {
		return s
	}
	if s.known != nil {
		if c := s.known.find(o.Shape); c != nil {
			return c
		}
	}
	c := new(Site)
	*c = *s
	c.known, c.Fields, c.Bypass, c.KeyRule = nil, o.Header, o.Cache.Bypass, o.Cache.Key
	if r := s.Origins[o.Cache.Origin]; r != nil {
		c.Origin, c.OriginName = r, o.Cache.Origin
	}
	if !c.KeyRule.HasValues() {
		c.mark, _ = c.KeyMark(nil)
	}
	if k := c.KeyRule; k != nil {
		c.IgnoreQuery = slices.Concat(s.IgnoreQuery, k.Drop)
	}
	if ttl := o.Cache.TTL; ttl != nil {
		c.Policy.TTL = *ttl
		c.Bypass = c.Bypass || *ttl == 0
	}
	if o.Cache.NoQuery {
		c.IgnoreQuery = []string{"*"}
	}
	if s.known == nil {
		return c
	}
	return s.known.add(o.Shape, c)
}

// LargestObject returns the size in bytes of the largest body that is stored for the site.
func (s *Site) LargestObject(store *storage.Store) int64 {
	if s.MaxObject == 0 {
		return store.MaxObject()
	}
	return min(s.MaxObject, store.MaxObject())
}

// SliceSize returns the size of a slice in bytes.
func (s *Site) SliceSize() int64 {
	if s.Slice == 0 {
		return 8 << 20
	}
	return s.Slice
}

// Bucket returns how requests to the site's origin are signed, if that is a private bucket, or nil.
func (s *Site) Bucket() *origin.S3 {
	if s.Origin == nil || s.Origin.Origin == nil {
		return nil
	}
	return s.Origin.Origin.S3
}

// ReducesQuery reports whether the site may ignore query parameters.
func (s *Site) ReducesQuery() bool {
	return len(s.IgnoreQuery) > 0 || s.Bucket() != nil || s.KeyRule != nil && len(s.KeyRule.Keep) > 0
}

// Reduce removes the query parameters that the site ignores from a target. What is not part of the
// key isn't sent to the origin either.
func (s *Site) Reduce(t httpcache.Target) httpcache.Target {
	t.Query = s.ReduceQuery(t.Query)
	return t
}

// ReduceQuery is Reduce for a query, which begins with "?" if there is one.
func (s *Site) ReduceQuery(query string) string {
	if query == "" || !s.ReducesQuery() {
		return query
	}
	var kept []string
	for param := range strings.SplitSeq(query[1:], "&") {
		name, _, _ := strings.Cut(param, "=")
		if !s.ignores(name) {
			kept = append(kept, param)
		}
	}
	if len(kept) == 0 {
		return ""
	}
	return "?" + strings.Join(kept, "&")
}

func (s *Site) ignores(name string) bool {
	if b := s.Bucket(); b != nil && !b.Allows(name) {
		return true
	}
	if s.KeyRule != nil && len(s.KeyRule.Keep) > 0 && !matchesAny(s.KeyRule.Keep, name) {
		return true
	}
	return matchesAny(s.IgnoreQuery, name)
}
