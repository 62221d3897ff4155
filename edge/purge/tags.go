package purge

import (
	"net/http"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// TagsOf returns the tags of a response. It reads the fields of CDNs and those that applications
// write for Varnish. The host of the target is a tag too, and so is each of the response's groups
// (RFC 9875) at the origin.
func TagsOf(h http.Header, of *site.Site, t httpcache.Target) []string {
	host := t.Host
	tags := []string{hostTag(host)}
	if !slices.Contains(of.Hosts, host) {
		if w := site.WildcardOf(host); slices.Contains(of.Hosts, w) {
			tags = append(tags, hostTag(w)) // which purges the whole site
		}
	}
	for _, name := range []string{"Surrogate-Key", "Cache-Tags", "Purge-Cache-Tags"} {
		// separated by spaces; the last two are Drupal's
		for _, line := range h[name] {
			tags = append(tags, strings.Fields(line)...)
		}
	}
	for _, line := range h["Xkey"] {
		more, _ := bySpaceOrComma(line)
		tags = append(tags, more...)
	}
	for _, name := range []string{"Cache-Tag", "X-Magento-Tags", "X-Cache-Tags"} {
		// separated by commas; the last is FOSHttpCache's
		for _, line := range h[name] {
			for t := range strings.SplitSeq(line, ",") {
				if t = strings.TrimSpace(t); t != "" {
					tags = append(tags, t)
				}
			}
		}
	}
	for _, g := range httpcache.Groups(h["Cache-Groups"]) {
		tags = append(tags, GroupTag(g, t.Origin()))
	}
	return tags
}

// The edge's own tags can't be an origin's: a field has no NUL.

func hostTag(host string) string { return "\x00host " + host }

// GroupTag returns the tag of a group of one origin (RFC 9875, 2).
func GroupTag(group, origin string) string { return "\x00group " + origin + " " + group }
