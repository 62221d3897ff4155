package edge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// PurgeLog is a log of purges that all edges of a fleet follow.
type PurgeLog interface {
	// Append puts a purge into the log and returns its sequence once it can't be lost. It fails
	// with an error that is ErrNoPurgeLog if the log can't be reached. site is the one that all
	// of the purge is of, or "".
	Append(ctx context.Context, site string, p PurgeRequest) (seq uint64, err error)
	// InTouch reports whether this edge may trust what it has: not long ago it had applied all that
	// there was.
	InTouch() bool
	// CutOff reports whether this edge hears nothing at all of the others, so that there may be
	// purges that it can't hear of: what is stored is good if the origin can't be asked.
	CutOff() bool
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

// Progress is how far an edge is with a purge.
type Progress struct {
	Node    string  `json:"node"`
	Applied bool    `json:"applied"`
	Live    bool    `json:"live"`              // it was heard of in the last seconds
	Seconds float64 `json:"seconds,omitempty"` // from the beginning of the wait until it was known to be applied
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

// ErrNotAllowed says that this node may not make a purge.
var ErrNotAllowed = errors.New("not allowed")

// ErrNoPurgeLog says that a purge was refused because the log can't be reached.
var ErrNoPurgeLog = errors.New("purge log unavailable")

// Logged is a purge of the log.
type Logged struct {
	Site string // the only one that who made it may purge; "" is any
	Lost bool   // it is LostPurges
	PurgeRequest
}

// LostPurges is the entry of the log by which an edge tells the others that the log lost purges
// that it has applied: they may lack these, so that they take all that they have as stale. So do
// earlier versions, which don't understand it.
var LostPurges = json.RawMessage(`{"lost":true}`)

// ParseLogged reads an entry of the log. One that can't be read, such as that of a newer version,
// is an empty purge, which Apply takes as everything.
func ParseLogged(site string, entry []byte) Logged {
	l := Logged{Site: site}
	if site == "" && bytes.Equal(entry, LostPurges) {
		l.Lost = true
		return l
	}
	d := json.NewDecoder(bytes.NewReader(entry))
	d.DisallowUnknownFields() // a purge must not be half done
	if err := d.Decode(&l.PurgeRequest); err != nil {
		l.PurgeRequest = PurgeRequest{}
	}
	return l
}

// maxEntry bounds the values of one entry of the log, in bytes: a large purge must not keep others
// waiting on a slow line.
const maxEntry = 256 << 10

// Split returns purges that together are p, each with at most maxEntry bytes of values.
func (p PurgeRequest) Split() []PurgeRequest {
	out := []PurgeRequest{{All: p.All, Soft: p.Soft}}
	size := 0
	for _, list := range []struct {
		from []string
		to   func(*PurgeRequest) *[]string
	}{
		{p.URLs, func(p *PurgeRequest) *[]string { return &p.URLs }},
		{p.Tags, func(p *PurgeRequest) *[]string { return &p.Tags }},
		{p.Prefixes, func(p *PurgeRequest) *[]string { return &p.Prefixes }},
		{p.Hosts, func(p *PurgeRequest) *[]string { return &p.Hosts }},
	} {
		for _, v := range list.from {
			if size += len(v) + len(`"",`); size > maxEntry {
				out = append(out, PurgeRequest{Soft: p.Soft})
				size = len(v) + len(`"",`)
			}
			to := list.to(&out[len(out)-1])
			*to = append(*to, v)
		}
	}
	return out
}

// hosts are those of what a purge names, tags apart; that of a malformed URL is "", which is of
// no site.
func (p PurgeRequest) hosts() []string {
	out := slices.Clone(p.Hosts)
	for _, raw := range slices.Concat(p.URLs, p.Prefixes) {
		t, _ := httpcache.ParseURL(raw) // without a host if it fails, which purge tells of
		out = append(out, t.Host)
	}
	return out
}

// siteOf is the site that all of a purge is of, or "".
func (s *Server) siteOf(p PurgeRequest) string {
	if p.All || len(p.Tags) > 0 {
		return ""
	}
	var one *Site
	for _, host := range p.hosts() {
		site, _ := s.sites.Load().find(host)
		if site == nil || one != nil && site != one {
			return ""
		}
		one = site
	}
	if one == nil {
		return ""
	}
	return one.Name
}

// exceeds reports whether a purge is of another site than the one that it is to be of. A host of no
// site, as by an older fleet file, is nothing to be purged here.
func (s *Server) exceeds(p PurgeRequest, name string) bool {
	if p.All || len(p.Tags) > 0 {
		return true
	}
	for _, host := range p.hosts() {
		if site, _ := s.sites.Load().find(host); site != nil && site.Name != name {
			return true
		}
	}
	return false
}

// hasSite reports whether there is a site of a name.
func (s *Server) hasSite(name string) bool {
	return slices.ContainsFunc(s.sites.Load().list, func(site *Site) bool { return site.Name == name })
}

// SitesSum tells the names of sites and their hosts from others: edges with another sum may take
// a purge of one site for one of another.
func (s *Server) SitesSum() string {
	var lines []string
	for _, site := range s.sites.Load().list {
		lines = append(lines, fmt.Sprintf("%q %q\n", site.Name, slices.Sorted(slices.Values(site.Hosts))))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:8])
}

// purgeOfSite is a purge of all hosts of a site.
func (s *Server) purgeOfSite(name string) storage.Purge {
	var p storage.Purge
	for _, site := range s.sites.Load().list {
		if site.Name == name {
			for _, h := range site.Hosts {
				p.Tags = append(p.Tags, hostTag(h))
			}
		}
	}
	return p
}

// Doubt makes everything that is stored stale: purges of it may have been missed.
func (s *Server) Doubt(now storage.Position) error {
	return s.Store.Apply([]storage.Purge{{All: true, Soft: true, Doubt: true}}, now)
}

// Apply applies purges of the log. What is not understood, as that of a newer version, makes
// everything stale.
func (s *Server) Apply(requests []Logged, after storage.Position) error {
	purges := make([]storage.Purge, len(requests))
	for i, r := range requests {
		if r.Lost {
			s.Log.Warn("the purge log lost purges that were acknowledged, which this edge may lack: everything becomes stale")
			purges[i] = storage.Purge{All: true, Soft: true, Doubt: true}
			continue
		}
		if r.Site != "" && s.exceeds(r.PurgeRequest, r.Site) && !s.hasSite(r.Site) {
			// Who made it has another fleet file, as when a site is renamed. It may not purge
			// what is of other sites here, and could mean what is not.
			s.notUnderstood.Add(1)
			s.Log.Error("a purge of the log is of a site that this edge does not have, and of hosts that it has in others: everything becomes stale", "site", r.Site)
			purges[i] = storage.Purge{All: true, Soft: true, Doubt: true}
			continue
		}
		if r.Site != "" && s.exceeds(r.PurgeRequest, r.Site) {
			s.Log.Error("a purge of the log is not applied: it is of more than the site that who made it may purge", "site", r.Site)
			continue
		}
		p, err := r.purge(s.known)
		switch {
		case err != nil && r.Site != "":
			s.notUnderstood.Add(1)
			s.Log.Error("a purge of the log is not understood: its site is purged", "site", r.Site, "error", err)
			p = s.purgeOfSite(r.Site)
		case err != nil:
			s.notUnderstood.Add(1)
			s.Log.Error("a purge of the log is not understood: everything becomes stale", "error", err)
			p = storage.Purge{All: true, Soft: true, Doubt: true}
		}
		purges[i] = p
	}
	return s.Store.Apply(purges, after)
}

// notUnderstoodCounter is the metric of purges that made more stale than they were of.
func (s *Server) notUnderstoodCounter() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "kaiku_edge_purges_not_understood_total",
		Help: "Purges of the log that could not be applied as they were, so that everything, or everything of their site, became stale."},
		func() float64 { return float64(s.notUnderstood.Load()) })
}

// purge purges here, or everywhere if there is a log.
func (s *Server) purge(ctx context.Context, req PurgeRequest) (uint64, error) {
	p, err := req.purge(s.known)
	if err != nil {
		return 0, &requestError{err}
	}
	for _, host := range req.hosts() {
		if site, _ := s.sites.Load().find(host); site == nil {
			return 0, s.sites.Load().unknown(host)
		}
	}
	if s.Purges != nil {
		return s.Purges.Append(ctx, s.siteOf(req), req)
	}
	if s.Store == nil {
		return 0, fmt.Errorf("%w: this node is no edge, and the fleet has no control plane", ErrNoPurgeLog)
	}
	return s.Store.Purge(p)
}

// requestError is an error of who asked.
type requestError struct{ error }

// trusts reports whether what is stored may be used without asking the origin.
func (s *Server) trusts() bool { return s.Purges == nil || s.Purges.InTouch() }

// cutOff reports whether it is to be confirmed, if that can be had.
func (s *Server) cutOff() bool { return s.Purges != nil && s.Purges.CutOff() }

const (
	// purgesField tells a peer which purges the answer has to know of, and in an answer which ones
	// that knows of, as "log sequence".
	purgesField = origin.PurgesField
	// purgesMarkField is the mark of that position. Earlier versions know of none.
	purgesMarkField = "Kaiku-Purges-Mark"
)

// setPurges notes what this edge has applied in a request to a peer.
func (s *Server) setPurges(h http.Header) {
	delete(h, purgesField)
	delete(h, purgesMarkField)
	if s.Purges == nil {
		return
	}
	// The store's own, which is never behind the epoch that what comes is stored with.
	if p := s.Store.Position(); p.Log != 0 {
		writePurges(h, p)
	}
}

// tellPurges notes in an answer to a peer up to where purges don't cover it. The peer stores only
// what none covers that it has applied itself.
func (s *Server) tellPurges(x *exchange, h http.Header) {
	if !x.peer || s.Purges == nil {
		return
	}
	p := x.position
	if x.covered {
		p = storage.Position{}
	}
	writePurges(h, p)
}

// lacksPurges reports whether the answer to a request is one of a peer that does not say that all
// purges are before it that this edge had applied. Peers of an earlier version say nothing.
func lacksPurges(asked, answered http.Header) bool {
	if len(asked[purgesField]) == 0 || len(answered[purgesField]) == 0 {
		return false
	}
	want, err1 := purgesOf(asked)
	have, err2 := purgesOf(answered)
	return err1 != nil || err2 != nil || !hasPurges(have, want)
}

// writePurges notes a position in the log, for another edge.
func writePurges(h http.Header, p storage.Position) {
	h.Set(purgesField, fmt.Sprintf("%d %d", p.Log, p.Seq))
	h.Set(purgesMarkField, strconv.FormatUint(p.Mark, 10))
}

// purgesOf reads what writePurges wrote.
func purgesOf(h http.Header) (storage.Position, error) {
	number, seq, _ := strings.Cut(h.Get(purgesField), " ")
	mark := h.Get(purgesMarkField)
	if mark == "" {
		mark = "0"
	}
	var p storage.Position
	var errs [3]error
	p.Log, errs[0] = strconv.ParseUint(number, 10, 64)
	p.Seq, errs[1] = strconv.ParseUint(seq, 10, 64)
	p.Mark, errs[2] = strconv.ParseUint(mark, 10, 64)
	return p, errors.Join(errs[:]...)
}

// hasPurges reports whether who is at one position of the log has applied all up to another one.
// Marks are times: who has applied more, but earlier, did so before a part of the log was lost.
// While a clock is wrong, nobody knows, until both are at the same place.
func hasPurges(have, want storage.Position) bool {
	switch {
	case have.Log != want.Log || have.Seq < want.Seq:
		return false
	case have.Mark == 0 || want.Mark == 0: // an earlier version's
		return true
	case have.Seq == want.Seq:
		return have.Mark == want.Mark
	}
	return have.Mark > want.Mark
}

// peerPurgeWait is how long a peer's request waits for a purge that the peer knows and this edge
// does not.
const peerPurgeWait = time.Second

// knowsPurges waits until this edge has applied what the peer has. What it is about to answer
// could have been purged by then, and the peer would store it again.
func (s *Server) knowsPurges(ctx context.Context, h http.Header) bool {
	if s.Purges == nil || h.Get(purgesField) == "" {
		return true
	}
	want, err := purgesOf(h)
	if err != nil {
		return false
	}
	knows := func() bool { return hasPurges(s.Store.Position(), want) }
	if knows() {
		return true
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(peerPurgeWait)
	for {
		select {
		case <-tick.C:
			if knows() {
				return true
			}
		case <-end:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// behind answers a peer that knows of purges that have not come here yet; it goes on to the next
// tier.
func (s *Server) behind(w http.ResponseWriter) {
	w.Header().Set(origin.FailedField, "behind-with-purges")
	w.WriteHeader(http.StatusBadGateway)
}
