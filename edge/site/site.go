package site

import (
	"path"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Site is what an edge serves under some hosts.
type Site struct {
	Name string
	// lower case, without port; *.NAME is each name one label below NAME that no site has itself;
	// none means any host, and then it is the only site
	Hosts       []string
	Origin      *origin.Route
	Policy      httpcache.Policy
	MaxObject   int64    // bytes of the largest representation that is stored; 0 means no limit of its own
	Slice       int64    // a range of what is not stored is fetched in slices of so many bytes; 0 means 8 MiB
	IgnoreQuery []string // globs over the names of query parameters that are not part of the key
	// request fields, in canonical form, that pass from clients to the origin though they may
	// impersonate
	PassFields []string
	Redirect   bool   // requests over plain HTTP are sent to https://, where the edge has a listener for that
	HSTS       string // value of Strict-Transport-Security in responses over TLS; "" means none
}

// LargestObject is the size in bytes of the largest body of the site that is stored.
func (s *Site) LargestObject(store *storage.Store) int64 {
	if s.MaxObject == 0 {
		return store.MaxObject()
	}
	return min(s.MaxObject, store.MaxObject())
}

// SliceSize is the size in bytes of a slice.
func (s *Site) SliceSize() int64 {
	if s.Slice == 0 {
		return 8 << 20
	}
	return s.Slice
}

// Reduce removes the query parameters that the site ignores from a target. What is not part of the
// key isn't sent to the origin either.
func (s *Site) Reduce(t httpcache.Target) httpcache.Target {
	t.Query = s.ReduceQuery(t.Query)
	return t
}

// ReduceQuery is Reduce for a query, which begins with "?" if there is one.
func (s *Site) ReduceQuery(query string) string {
	if query == "" || len(s.IgnoreQuery) == 0 {
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
	for _, glob := range s.IgnoreQuery {
		if ok, _ := path.Match(glob, name); ok {
			return true
		}
	}
	return false
}
