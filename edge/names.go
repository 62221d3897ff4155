package edge

import (
	"context"
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// The rooms' types that are part of an edge's own interface.
type (
	Site          = site.Site
	Token         = purge.Token
	PurgeRequest  = purge.Request
	PurgeResponse = purge.Response
	PurgeLog      = purge.Log
	Progress      = purge.Progress
	Logged        = purge.Logged
	AccessLog     = front.AccessLog
	Explanation   = cache.Explanation
	Explained     = cache.Explained
	Outage        = cache.Outage
	Traffic       = front.Traffic
)

// What a token may be for; see package purge.
const (
	ScopePurge = purge.ScopePurge
	ScopeRead  = purge.ScopeRead
	ScopeDrain = purge.ScopeDrain
	ScopeWarm  = purge.ScopeWarm
	ScopeDebug = purge.ScopeDebug
)

// Errors of a PurgeLog, and the entry by which an edge says that it lost purges.
var (
	ErrNotAllowed = purge.ErrNotAllowed
	ErrNoPurgeLog = purge.ErrNoLog
	LostPurges    = purge.LostPurges
)

// Scopes are all of them.
func Scopes() []string { return purge.Scopes() }

// ParseLogged reads an entry of the log; see package purge.
func ParseLogged(site string, entry []byte) Logged { return purge.ParseLogged(site, entry) }

// CheckPassField returns why a field can't be one of Site.PassFields; see package cache.
func CheckPassField(name string) error { return cache.CheckPassField(name) }

// SitesSum tells the sites from others; see site.Set.
func (s *Server) SitesSum() string { return s.sites.Now().Sum() }

// SetTokens replaces the tokens, also while the server serves. Without any, the API is open to
// everybody who reaches it.
func (s *Server) SetTokens(list []Token) { s.tokens.Set(list) }

// Apply applies purges of the log; see purge.Purger.
func (s *Server) Apply(entries []Logged, after storage.Position) error {
	return s.purger.Apply(entries, after)
}

// Doubt makes everything that is stored stale; see purge.Purger.
func (s *Server) Doubt(now storage.Position) error { return s.purger.Doubt(now) }

// makePurger makes what purges on this node.
func (s *Server) makePurger() {
	s.purger = &purge.Purger{Node: s.Name, Sites: &s.sites, Store: s.Store, Purges: s.Purges, Fleet: s.Fleet,
		Tokens: &s.tokens, From: s.PurgeFrom, Log: s.Log,
		Refused: func(r *http.Request, status int, why string) { s.front.LogRefusal(r, status, why) }}
}

// Fleet is what an edge knows of the other nodes.
type Fleet interface {
	// Progress tells how far each edge is with a purge. With wait it returns once all have
	// applied it, or ctx ends.
	Progress(ctx context.Context, seq uint64, wait bool) []Progress
	// Nodes are those that were heard of.
	Nodes() []NodeStatus
	// Names are those of all nodes, whether they were heard of or not.
	Names() []string
	// Drain marks a node to get no new clients, or takes the mark back, for good. It fails with
	// ErrNoPurgeLog like PurgeLog.
	Drain(ctx context.Context, node string, drain bool) error
}

// NodeStatus is what a node says of itself.
type NodeStatus struct {
	Node     string    `json:"node"`
	Roles    []string  `json:"roles"`
	Region   string    `json:"region,omitempty"`
	Version  string    `json:"version"`
	Address  string    `json:"address,omitempty"`
	Live     bool      `json:"live"`
	Ready    bool      `json:"ready"` // it serves, and trusts what it has
	Draining bool      `json:"draining"`
	Disk     string    `json:"disk,omitempty"` // of a control node: "scarce", or "full", as purges are refused then
	Load     float64   `json:"load"`           // 0 to 1, of its capacity
	Purges   uint64    `json:"purges"`         // sequence of the newest that it applied
	Started  time.Time `json:"started"`
	// Behind is how many purges an edge lacks that another one has applied.
	Behind uint64 `json:"behind,omitempty"`
}
