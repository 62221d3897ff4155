package purge

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// everything returns a purge that makes every object stale, for when purges may have been missed.
func everything() storage.Purge { return storage.Purge{All: true, Soft: true, Suspect: true} }

// Suspect makes every object stale, because purges may have been missed up to a position.
func (p *Purger) Suspect(now storage.Position) error {
	return p.Store.Apply([]storage.Purge{everything()}, now)
}

// Apply applies purges of the log. An entry that it can't read, such as one of a newer version,
// makes everything stale.
func (p *Purger) Apply(entries []Logged, after storage.Position) error {
	sites := p.Sites.Now()
	purges := make([]storage.Purge, len(entries))
	for i, l := range entries {
		purges[i] = p.effect(l, sites)
	}
	return p.Store.Apply(purges, after)
}

// effect returns what an entry of the log does on this node.
func (p *Purger) effect(l Logged, sites *site.Set) storage.Purge {
	if l.Lost {
		p.Log.Warn("the purge log has lost acknowledged purges, and this edge may have missed some: everything becomes stale")
		return everything()
	}
	parsed, err := Parse(l.Request, sites)
	limited := l.Site != ""
	switch {
	case limited && parsed.exceeds(l.Site) && sites.Named(l.Site) == nil:
		// The sender has another fleet file, for instance while a site is renamed. It may not purge
		// objects of other sites here, and this node can't tell which ones it means.
		p.notUnderstood.Add(1)
		p.Log.Error("a purge in the log is for a site that this edge does not have, but for hosts of its other sites: everything becomes stale", "site", l.Site)
		return everything()
	case limited && parsed.exceeds(l.Site):
		p.Log.Error("a purge in the log is not applied, because it exceeds the site that its sender may purge", "site",
			l.Site)
		return storage.Purge{}
	case err != nil && limited:
		p.notUnderstood.Add(1)
		p.Log.Error("a purge in the log can't be read: everything of its site is purged", "site", l.Site, "error", err)
		return ofSite(l.Site, sites)
	case err != nil:
		p.notUnderstood.Add(1)
		p.Log.Error("a purge in the log can't be read: everything becomes stale", "error", err)
		return everything()
	}
	return parsed.Store
}

// ofSite returns a purge of all hosts of a site.
func ofSite(name string, sites *site.Set) storage.Purge {
	var p storage.Purge
	if of := sites.Named(name); of != nil {
		for _, h := range of.Hosts {
			p.Tags = append(p.Tags, hostTag(h))
		}
	}
	return p
}

// NotUnderstood returns the metric of the log's purges that made more stale than they named.
func (p *Purger) NotUnderstood() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "kaiku_edge_purges_not_understood_total",
		Help: "Purges of the log that could not be applied as they were, so that everything, or everything of their site, became stale."},
		func() float64 { return float64(p.notUnderstood.Load()) })
}
