package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// startAlone runs an edge for www.example.com with tokens, and returns where it is and a file with
// each token.
func startAlone(t *testing.T, originURL string) (n *testNode, tokens map[string]string) {
	t.Helper()
	dir := t.TempDir()
	n = &testNode{http: freeport.Addr(t), admin: freeport.Addr(t)}
	tokens = map[string]string{}
	for _, name := range []string{"admin", "deploy", "watch"} {
		tokens[name] = filepath.Join(dir, name+".token")
		if err := os.WriteFile(tokens[name], []byte("token of "+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "fleet.yaml")
	text := fmt.Sprintf(`
sites:
  - { name: www, hosts: [www.example.com], origin: { servers: ["%s"] } }
  - { name: shop, hosts: [shop.example.com], origin: { servers: ["%[1]s"] } }
edge: { http: %q, admin: %q, data: %q, disk: 128MiB, memory: 16MiB, purge_from: [127.0.0.1/32] }
secrets:
  admin_token: admin.token
  tokens:
    - { file: deploy.token, scopes: [purge, warm], sites: [www] }
    - { file: watch.token, scopes: [read] }
nodes:
  hel1: { roles: [edge], location: [0, 0], addresses: [127.0.0.1] }
`, originURL, n.http, n.admin, filepath.Join(dir, "data"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	runNode(t, config, "hel1")
	testwait.Until(t, "the edge answers", func() bool {
		_, err := command(t, "status", "--admin", n.admin, "--token-file", tokens["watch"])
		return err == nil
	})
	return n, tokens
}

func TestTokensOfTheFleetFile(t *testing.T) {
	o := newCountingOrigin(t)
	n, tokens := startAlone(t, o.URL)
	for _, c := range []struct {
		args, token string
		says        string // "" means that it works
	}{
		{"purge --all", "admin", ""},
		{"purge --all", "deploy", "403"},
		{"purge --tag x", "deploy", "403"},
		{"purge http://www.example.com/a", "deploy", ""},
		{"purge --host shop.example.com", "deploy", "not for the site of shop.example.com"},
		{"purge --all", "watch", "scope purge"},
		{"status", "deploy", "scope read"},
		{"status", "admin", ""},
		{"warm http://www.example.com/w", "deploy", ""},
		{"warm http://shop.example.com/w", "deploy", "not for the site of shop.example.com"},
		{"warm http://www.example.com/w", "watch", "scope warm"},
	} {
		out, err := command(t, append(strings.Fields(c.args), "--admin", n.admin, "--token-file", tokens[c.token])...)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s with the token of %s: %v, %s", c.args, c.token, err, out)
		}
	}
	// purge_from reaches the edge.
	r, err := http.NewRequestWithContext(t.Context(), "PURGE", "http://"+n.http+"/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "www.example.com"
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(b) != "Purged\n" {
		t.Errorf("PURGE: %s, %s, %v", resp.Status, b, err)
	}
}

func TestWarmCommand(t *testing.T) {
	o := newCountingOrigin(t)
	n, tokens := startAlone(t, o.URL)
	auth := []string{"--admin", n.admin, "--token-file", tokens["deploy"], "--rate", "1000"}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	fmt.Fprint(z, sitemapOf("http://www.example.com/z"))
	z.Close()
	var site *httptest.Server
	site = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sitemap.xml":
			fmt.Fprint(w, sitemapOf("http://www.example.com/x", " http://www.example.com/y?a=1&amp;b=2\n"))
		case "/index.xml":
			fmt.Fprintf(w, `<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><sitemap><loc>%[1]s/sitemap.xml</loc></sitemap><sitemap><loc>%[1]s/z.xml.gz</loc></sitemap></sitemapindex>`, site.URL)
		case "/z.xml.gz":
			_, _ = w.Write(packed.Bytes())
		default:
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(site.Close)
	for _, c := range []struct{ args, says, fails string }{
		{"http://www.example.com/a http://www.example.com/b", "requested 2, stored 2\n", ""},
		{"--sitemap " + site.URL + "/sitemap.xml", "requested 2, stored 2\n", ""},
		{"--sitemap " + site.URL + "/index.xml", "requested 3, stored 3\n", ""},
		{"--json http://www.example.com/a", `"stored":1`, ""},
		{"not-a-url", "not-a-url  ", "1 of 1 URLs"},
		{"--sitemap " + site.URL + "/none.xml", "", "404"},
	} {
		out, err := command(t, append(append([]string{"warm"}, strings.Fields(c.args)...), auth...)...)
		if !strings.Contains(out, c.says) || (err == nil) != (c.fails == "") || err != nil &&
			!strings.Contains(err.Error(), c.fails) {
			t.Errorf("warm %s: %v\n%s", c.args, err, out)
		}
	}
	for _, path := range []string{"/a", "/b", "/x", "/y", "/z"} {
		if n := o.count(path); n != 1 {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
	for _, args := range [][]string{{"warm"}, {"warm", "http://a/", "--sitemap", "http://a/"},
		{"warm", "http://a/", "--rate", "0"}, {"warm", "http://a/", "--rate", "1001"}} {
		if _, err := command(t, args...); !errors.As(err, new(usageError)) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func sitemapOf(locs ...string) string {
	s := `<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">`
	for _, l := range locs {
		s += "<url><loc>" + l + "</loc><lastmod>2026-01-01</lastmod><image:image><image:loc>http://www.example.com/i.png</image:loc></image:image></url>"
	}
	return s + "</urlset>"
}

func TestSitemapLimits(t *testing.T) {
	urls, _, err := parseSitemap(strings.NewReader(sitemapOf("http://a/", "http://b/")))
	if err != nil || !slices.Equal(urls, []string{"http://a/", "http://b/"}) {
		t.Errorf("%q, %v", urls, err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	fmt.Fprint(z, "<urlset><!--")
	_, _ = z.Write(make([]byte, maxSitemap))
	z.Close()
	many := "<urlset>" + strings.Repeat("<url><loc>http://a/</loc></url>", maxSitemapURLs+1) + "</urlset>"
	for name, text := range map[string]string{"too large": packed.String(), "too many": many, "empty": "",
		"no URLs": "<urlset/>", "HTML": "<html><p>none", "cut": "<urlset><url><loc>http://a/"} {
		if urls, _, err := parseSitemap(strings.NewReader(text)); err == nil {
			t.Errorf("%s: %d URLs", name, len(urls))
		}
	}
}

func FuzzSitemap(f *testing.F) {
	f.Add(sitemapOf("http://a/"))
	f.Add("<sitemapindex><sitemap><loc>http://a/</loc></sitemap></sitemapindex>")
	f.Add("\x1f\x8b")
	f.Fuzz(func(t *testing.T, text string) {
		urls, sitemaps, err := parseSitemap(strings.NewReader(text))
		if err == nil && len(urls)+len(sitemaps) == 0 {
			t.Error("neither URLs nor an error")
		}
	})
}

func TestBatches(t *testing.T) {
	var got []string
	for b := range batches([]string{"aaaa", "b", "c", "dddddddddddddddddddddddddddddddd", "e"}, 2, 30) {
		j, _ := json.Marshal(b)
		got = append(got, string(j))
	}
	if want := `["aaaa","b"] ["c"] ["dddddddddddddddddddddddddddddddd"] ["e"]`; strings.Join(got, " ") != want {
		t.Errorf("got %s", strings.Join(got, " "))
	}
}
