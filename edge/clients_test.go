package edge

import (
	"testing"

	cloudflare "github.com/cloudflare/cloudflare-go/v7/cache"
	"github.com/cloudflare/cloudflare-go/v7/option"

	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// cloudflareBodies are what the client sends. The fields are set one by one: the F of its root
// package, which does it in a line, comes with all of Cloudflare's API.
func cloudflareBodies() map[string]cloudflare.CachePurgeParamsBodyUnion {
	var files cloudflare.CachePurgeParamsBodyCachePurgeSingleFile
	files.Files.Value, files.Files.Present = []string{"http://www.example/a"}, true
	var tags cloudflare.CachePurgeParamsBodyCachePurgeFlexPurgeByTags
	tags.Tags.Value, tags.Tags.Present = []string{"k-a", "k-c"}, true
	var hosts cloudflare.CachePurgeParamsBodyCachePurgeFlexPurgeByHostnames
	hosts.Hosts.Value, hosts.Hosts.Present = []string{"www.example"}, true
	var prefixes cloudflare.CachePurgeParamsBodyCachePurgeFlexPurgeByPrefixes
	prefixes.Prefixes.Value, prefixes.Prefixes.Present = []string{"www.example/a/"}, true
	var all cloudflare.CachePurgeParamsBodyCachePurgeEverything
	all.PurgeEverything.Value, all.PurgeEverything.Present = true, true
	var one cloudflare.CachePurgeParamsBodyCachePurgeSingleFileWithURLAndHeadersFile
	one.URL.Value, one.URL.Present = "http://www.example/c", true
	one.Headers.Value, one.Headers.Present = map[string]string{"CF-IPCountry": "FI"}, true
	var withFields cloudflare.CachePurgeParamsBodyCachePurgeSingleFileWithURLAndHeaders
	withFields.Files.Value = []cloudflare.CachePurgeParamsBodyCachePurgeSingleFileWithURLAndHeadersFile{one}
	withFields.Files.Present = true
	return map[string]cloudflare.CachePurgeParamsBodyUnion{"/a": files, "/a /a?x=1 /c": tags, taggedPaths: hosts,
		"/a/b": prefixes, "/c": withFields,
		taggedPaths + " /d": all}
}

// Cloudflare's own client purges Kaiku, and reads its answers and errors.
func TestPurgeByCloudflareClient(t *testing.T) {
	for gone, body := range cloudflareBodies() {
		t.Run(gone, func(t *testing.T) {
			e := newTagged(t, func(s *Server, _ *site.Site) { s.Tokens.Set([]purge.Token{full("secret")}) })
			client := cloudflare.NewCacheService(option.WithBaseURL("http://"+e.AdminAddr().String()+"/client/v4/"),
				option.WithMaxRetries(0))
			params := cloudflare.CachePurgeParams{Body: body}
			params.ZoneID.Value, params.ZoneID.Present = "023e105f4ecef8ad9ca31a8372d0c353", true
			if _, err := client.Purge(t.Context(), params, option.WithAPIToken("wrong")); err == nil {
				t.Error("a wrong token purges")
			}
			done, err := client.Purge(t.Context(), params, option.WithAPIToken("secret"))
			if err != nil || done.ID != "1" {
				t.Fatalf("%+v, %v", done, err)
			}
			e.wantGone(gone, false)
		})
	}
}
