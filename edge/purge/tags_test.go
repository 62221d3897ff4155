package purge

import (
	"net/http"
	"slices"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

func TestTagsOf(t *testing.T) {
	h := http.Header{"Surrogate-Key": {"a  b", " c "}, "Cache-Tag": {"d e,f", " ,g,"}, "Cache-Groups": {`"h", "i j"`}}
	if got, want := TagsOf(h, &site.Site{Hosts: []string{"www.example"}},
		httpcache.Target{Secure: true, Host: "www.example"}), []string{"\x00host www.example", "a", "b", "c", "d e",
		"f", "g",
		"\x00group https://www.example h", "\x00group https://www.example i j"}; !slices.Equal(got, want) {
		t.Errorf("tags are %q, want %q", got, want)
	}
}
