package admin

import (
	"crypto/sha256"
	_ "embed" // for the page
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/purge"
)

// The parts of the page for operators. They are sent as one file.
var (
	//go:embed page/page.html
	pageHTML string
	//go:embed page/page.css
	pageCSS string
	//go:embed page/page.js
	pageJS string
	//go:embed page/world.svg
	pageWorld string
)

// page is the page as it is sent, and the policy that lets a browser run its own script and style
// only, and connect to this listener only.
type page struct{ text, policy string }

func newPage() page {
	sum := func(text string) string {
		b := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(b[:]) + "'"
	}
	return page{
		strings.NewReplacer("/*CSS*/", pageCSS, "/*JS*/", pageJS, "<!--WORLD-->", pageWorld).Replace(pageHTML),
		"default-src 'none'; script-src " + sum(pageJS) + "; style-src " + sum(pageCSS) +
			"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
	}
}

// serve answers GET /. The page has no secrets: what it shows needs a token.
func (p page) serve(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", p.policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "geolocation=(), camera=(), microphone=()")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(p.text)) // it fails only if the client is gone
}

// Session is the answer to GET /v1/session: who answers, and what the client may do.
type Session struct {
	Node        string   `json:"node"`
	Version     string   `json:"version,omitempty"`
	SignedIn    bool     `json:"signed_in"` // false if the node has no tokens
	Edge        bool     `json:"edge"`
	NameServer  bool     `json:"name_server"`
	NameServers []string `json:"name_servers"` // of the fleet
	Fleet       bool     `json:"fleet"`        // there is a control plane, so nodes can be drained
	Scopes      []string `json:"scopes"`
	Sites       []string `json:"sites"` // that it may purge and warm; none means all
	Hosts       []string `json:"hosts"` // of the sites, at most 200
}

const maxHosts = 200

// serveSession answers GET /v1/session.
func (s *Server) serveSession(w http.ResponseWriter, r *http.Request) {
	g := purge.GrantOf(r.Context())
	out := Session{Node: s.Purger.Node, Version: s.Version, SignedIn: s.Purger.Tokens.Any(), Edge: s.Edge != nil,
		NameServer: s.ExplainDNS != nil, NameServers: []string{}, Fleet: s.Fleet != nil, Scopes: g.Scopes(),
		Sites: g.Sites(), Hosts: []string{}}
	if s.Fleet != nil {
		out.NameServers = append(out.NameServers, s.Fleet.NameServers()...)
	}
	for _, of := range s.Purger.Sites.Now().List {
		out.Hosts = append(out.Hosts, of.Hosts...)
	}
	out.Hosts = out.Hosts[:min(len(out.Hosts), maxHosts)]
	w.Header().Set("Cache-Control", "no-store")
	purge.WriteJSON(w, http.StatusOK, out)
}
