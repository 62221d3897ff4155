package purge

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Request is the body of POST /v1/purge. URLs and prefixes are absolute. Their scheme and port
// don't matter.
type Request struct {
	URLs     []string `json:"urls,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	Prefixes []string `json:"prefixes,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`
	All      bool     `json:"all,omitempty"`
	Soft     bool     `json:"soft,omitempty"` // make objects stale instead of removing them
}

// addSite adds all hosts of a site.
func (r *Request) addSite(of *site.Site) {
	if len(of.Hosts) == 0 {
		r.All = true // it is the only site
		return
	}
	r.Hosts = append(r.Hosts, of.Hosts...)
}

// Purge is a parsed request: what the store has to do, and what the purge covers.
type Purge struct {
	Request
	Store storage.Purge
	named []named
}

// named is a URL, prefix or host of a purge.
type named struct {
	text string // as the client wrote it
	host string
	site *site.Site // of the host; nil if no site has it
}

// Parse reads a request against the sites of a node. If it returns an error, the purge has what
// could be read, which is enough to check whether the client may make it.
func Parse(req Request, sites *site.Set) (*Purge, error) {
	p := &Purge{Request: req, Store: storage.Purge{All: req.All, Soft: req.Soft}}
	var err error
	note := func(e error) { err = cmp.Or(err, e) } // keep the first
	for _, raw := range req.URLs {
		known, e := p.name(raw, sites)
		note(e)
		p.Store.URLs = append(p.Store.URLs, known)
	}
	for _, raw := range req.Prefixes {
		known, e := p.name(raw, sites)
		note(e)
		p.Store.Prefixes = append(p.Store.Prefixes, known)
	}
	for _, t := range req.Tags {
		if t == "" || strings.ContainsRune(t, 0) { // with a NUL it could be one of the edge's own tags
			note(fmt.Errorf("%q is not a tag", t))
		}
		p.Store.Tags = append(p.Store.Tags, t)
	}
	for _, h := range req.Hosts {
		if h == "" || strings.ContainsAny(h, "/ ") {
			note(fmt.Errorf("purge host %q: want a host name", h))
		}
		of, host := sites.Find(h)
		p.named = append(p.named, named{h, h, of})
		p.Store.Tags = append(p.Store.Tags, hostTag(host))
	}
	for _, v := range slices.Concat(p.Store.URLs, p.Store.Prefixes, p.Store.Tags) {
		if len(v) > storage.MaxPurgeValue {
			note(fmt.Errorf("purge %.40q…: %d bytes, want at most %d", v, len(v), storage.MaxPurgeValue))
		}
	}
	if len(p.Store.URLs)+len(p.Store.Prefixes)+len(p.Store.Tags) == 0 && !req.All {
		note(errors.New("nothing to purge: give urls, tags, prefixes, hosts or all"))
	}
	return p, err
}

// name reads a URL or prefix. It returns the form that the store knows: without the query
// parameters that the site ignores.
func (p *Purge) name(raw string, sites *site.Set) (known string, err error) {
	t, err := httpcache.ParseURL(raw)
	if err != nil {
		return "", err
	}
	of, _ := sites.Find(t.Host)
	p.named = append(p.named, named{raw, t.Host, of})
	if !utf8.ValidString(raw) {
		return "", fmt.Errorf("%q is not UTF-8, so JSON can't name it: purge by prefix, host or tag", raw)
	}
	if of != nil {
		t = of.Reduce(t)
	}
	return t.URL(), nil
}

// site returns the only site that the purge covers, or "".
func (p *Purge) site() string {
	if p.All || len(p.Tags) > 0 || len(p.named) == 0 {
		return ""
	}
	one := p.named[0].site
	for _, n := range p.named {
		if n.site == nil || n.site != one {
			return ""
		}
	}
	return one.Name
}

// exceeds reports whether the purge covers another site than the given one. A host of no site,
// which an older fleet file may have, has nothing to be purged here.
func (p *Purge) exceeds(name string) bool {
	if p.All || len(p.Tags) > 0 {
		return true
	}
	return slices.ContainsFunc(p.named, func(n named) bool { return n.site != nil && n.site.Name != name })
}

// within returns an error if the purge covers more than a site. Tags belong to no site.
func (p *Purge) within(of *site.Site) error {
	for _, n := range p.named {
		if n.site != of {
			return fmt.Errorf("%s does not belong to the site %s", n.text, of.Name)
		}
	}
	return nil
}
