package admin

import (
	"fmt"
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// serveExplain answers GET /v1/explain for the query parameter url.
func (s *Server) serveExplain(w http.ResponseWriter, r *http.Request) {
	raw := r.URL.Query().Get("url")
	t, err := httpcache.ParseURL(raw)
	if err != nil {
		purge.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	of, _ := s.Purger.Sites.Now().Find(t.Host)
	if of == nil {
		purge.Fail(w, http.StatusNotFound, s.Purger.Sites.Now().Unknown(t.Host).Error())
		return
	}
	purge.WriteJSON(w, http.StatusOK, s.explain(raw, t, of))
}

// explain returns what the cache knows of a target, after the site's rules have changed the target.
func (s *Server) explain(raw string, t httpcache.Target, of *site.Site) cache.Explanation {
	if of.Rules.Len() == 0 {
		return s.Edge.Cache.Explain(raw, t, of)
	}
	o := of.Rules.Evaluate(&rules.Request{Method: http.MethodGet, Secure: t.Secure, Host: t.Host, Path: t.Path,
		Query: t.Query, Protocol: 1, Now: time.Now()})
	t.Path, t.Query = o.Path, o.Query
	e := s.Edge.Cache.Explain(raw, t, of.Under(o))
	e.Rules = o.Rules
	for _, l := range o.Limits {
		e.Limits = append(e.Limits, l.String())
	}
	switch {
	case o.Response != nil:
		e.WhyNot = fmt.Sprintf("the rule %s answers with %d", o.By, o.Response.Status)
		if o.Response.Reason != "" {
			e.WhyNot += " (" + o.Response.Reason + ")"
		}
	case of.Under(o).Bypass:
		e.WhyNot = "a rule bypasses the cache"
	}
	return e
}
