package admin

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/purge"
)

// serveExplainDNS answers GET /v1/explain/dns for the query parameters name and client.
func (s *Server) serveExplainDNS(w http.ResponseWriter, r *http.Request) {
	if s.ExplainDNS == nil {
		text := "this node is not a name server: send this request to a name server"
		if s.Fleet != nil && len(s.Fleet.NameServers()) > 0 {
			text = "this node is not a name server: send this request to " + strings.Join(s.Fleet.NameServers(), " or ")
		}
		purge.Fail(w, http.StatusNotFound, text)
		return
	}
	client, err := netip.ParseAddr(r.URL.Query().Get("client"))
	if err != nil {
		purge.Fail(w, http.StatusBadRequest, "want client=ADDRESS, the IP address of a client")
		return
	}
	x, err := s.ExplainDNS(r.URL.Query().Get("name"), client)
	if err != nil {
		purge.Fail(w, http.StatusNotFound, strings.TrimPrefix(err.Error(), "geodns: "))
		return
	}
	purge.WriteJSON(w, http.StatusOK, x)
}
