package edge

import (
	"net/http"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// edgeFields are the fields of a response that are for the edge alone: tags for purges, directives,
// and other ways to the origin (RFC 7838), which are no way to the edge. They are stored, and
// clients don't see them.
var edgeFields = []string{"Alt-Svc", "Surrogate-Key", "Cache-Tag", "Surrogate-Control", "X-Magento-Tags", "X-Cache-Tags", "Cache-Tags", "Purge-Cache-Tags", "Xkey"}

// hideEdgeFields removes them from a response, unless it is for another edge.
func (x *exchange) hideEdgeFields(h http.Header) {
	if x.peer {
		return
	}
	for _, name := range edgeFields {
		delete(h, name)
	}
}

// tagsOf reads a response's tags, from the fields of CDNs and from those that applications write
// for Varnish. The host of its target is one, and so is each of its groups (RFC 9875) at the
// origin.
func tagsOf(h http.Header, site *Site, t httpcache.Target) []string {
	host := t.Host
	tags := []string{hostTag(host)}
	if w := wildcardOf(host); !slices.Contains(site.Hosts, host) && slices.Contains(site.Hosts, w) {
		tags = append(tags, hostTag(w)) // by which the whole site is purged
	}
	for _, name := range []string{"Surrogate-Key", "Cache-Tags", "Purge-Cache-Tags"} { // by space; the last two are Drupal's
		for _, line := range h[name] {
			tags = append(tags, strings.Fields(line)...)
		}
	}
	for _, line := range h["Xkey"] {
		more, _ := bySpaceOrComma(line)
		tags = append(tags, more...)
	}
	for _, name := range []string{"Cache-Tag", "X-Magento-Tags", "X-Cache-Tags"} { // by comma; the last is FOSHttpCache's
		for _, line := range h[name] {
			for t := range strings.SplitSeq(line, ",") {
				if t = strings.TrimSpace(t); t != "" {
					tags = append(tags, t)
				}
			}
		}
	}
	for _, g := range httpcache.Groups(h["Cache-Groups"]) {
		tags = append(tags, groupTag(g, t.Origin()))
	}
	return tags
}

// The edge's own tags can't be an origin's: a field has no NUL.

func hostTag(host string) string { return "\x00host " + host }

// groupTag names a group of one origin (RFC 9875, 2).
func groupTag(group, origin string) string { return "\x00group " + origin + " " + group }
