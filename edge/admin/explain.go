package admin

import (
	"net/http"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
)

// serveExplain answers for the url of the query.
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
	purge.WriteJSON(w, http.StatusOK, s.Edge.Cache.Explain(raw, t, of))
}
