package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
)

// lookTimeout bounds the time of all requests that init sends to the origin.
const lookTimeout = 15 * time.Second

// lookAtOrigin sends requests to the origin as an edge would, and prints what it found. Whatever
// that is, init writes its files.
func (f *firstFiles) lookAtOrigin(ctx context.Context, out io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	f.lookUpOrigin(ctx, out)
	fmt.Fprintf(out, "origin %s:\n", f.Origin)
	tell := func(format string, a ...any) { fmt.Fprintf(out, "  "+format+"\n", a...) }
	site := &config.Site{Name: "www", Hosts: f.hosts(),
		Origin: config.Origin{Servers: []config.OriginServer{{URL: f.Origin}},
			ConnectTimeout: config.Duration(5 * time.Second), FirstByteTimeout: config.Duration(8 * time.Second),
			BetweenBytesTimeout: config.Duration(5 * time.Second)}}
	pool, err := node.OriginPool(new(config.Fleet), site)
	if err == nil {
		pool.Log = slog.New(slog.DiscardHandler)
		err = pool.Start()
	}
	if err != nil {
		tell("%v", err)
		return
	}
	defer pool.Close()
	page, body, err := fetchOnce(ctx, pool, f.hosts()[1], "/")
	if err != nil {
		f.Unreached = true
		failure := origin.FailureOf(err, time.Now())
		tell("it does not answer this machine: %s", cmp.Or(failure.Hint, failure.Error))
		return
	}
	certificate := ""
	if page.TLS != nil {
		until := page.TLS.PeerCertificates[0].NotAfter
		certificate = fmt.Sprintf("; its certificate is valid until %s", until.UTC().Format(time.DateOnly))
		if left := time.Until(until); left < 14*24*time.Hour {
			certificate += fmt.Sprintf(", for %s more", plainTime(left))
		}
	}
	tell("it answers / with %d%s", page.StatusCode, certificate)
	if page.StatusCode >= 400 {
		f.Unhealthy = page.StatusCode
		tell("a health check of / would find the server unhealthy: set another path for origin.health in fleet.yaml")
	}
	if to := page.Header.Get("Location"); page.StatusCode/100 == 3 && to != "" {
		tell("%s", f.redirects(to))
	}
	tell("/ will be %s", cached(page))
	if asset := assetOf(body); asset != "" {
		if resp, _, err := fetchOnce(ctx, pool, f.hosts()[1], asset); err == nil && resp.StatusCode == http.StatusOK {
			tell("%s will be %s", asset, cached(resp))
		}
	}
}

// lookUpOrigin returns the addresses of an origin below the domain. The fleet's own name servers
// have to answer for its name.
func (f *firstFiles) lookUpOrigin(ctx context.Context, out io.Writer) {
	label, ok := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(f.Origin.Hostname(), ".")), "."+f.Domain)
	if !ok {
		return
	}
	f.OriginLabel = label
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", f.Origin.Hostname())
	if err != nil {
		fmt.Fprintf(out, "origin %s: its name has no address at present; add its A and AAAA records to %s.zone, because edges will look it up at these name servers\n", f.Origin, f.Domain)
		return
	}
	for _, a := range addrs {
		f.OriginAddresses = append(f.OriginAddresses, a.Unmap())
	}
	slices.SortFunc(f.OriginAddresses, netip.Addr.Compare)
	f.OriginAddresses = slices.Compact(f.OriginAddresses)
	fmt.Fprintf(out, "%s: its present addresses were written to %s.zone\n", f.Origin.Hostname(), f.Domain)
}

// fetchOnce fetches a path of a host as an edge does on a miss. It reads the beginning of the body.
func fetchOnce(ctx context.Context, pool *origin.Pool, host, path string) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("User-Agent", "kaiku-init")
	resp, err := pool.Fetch(r, origin.FetchOptions{Key: path})
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 256<<10)) // a part is enough if the body is cut short
	return resp, body, nil
}

// redirects returns what a redirect of the origin means.
func (f *firstFiles) redirects(to string) string {
	u, err := f.Origin.Parse(to)
	if err != nil {
		return fmt.Sprintf("that is a redirect to %q, which is not a URL", to)
	}
	switch host := strings.ToLower(u.Hostname()); {
	case slices.Contains(f.hosts(), host):
		return fmt.Sprintf("that is a redirect to %s, which will lead to the edges: if the origin redirects every request like this, visitors end in a loop; "+
			"see Host in docs/origins.md", u)
	case host == strings.ToLower(f.Origin.Hostname()) && u.Scheme == "https" && f.Origin.Scheme == "http":
		return fmt.Sprintf("that is a redirect to %s: write https:// in fleet.yaml", u)
	case host == strings.ToLower(f.Origin.Hostname()):
		return fmt.Sprintf("that is a redirect to %s: visitors who follow it leave the edges; see Host in docs/origins.md", (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}))
	default:
		return fmt.Sprintf("that is a redirect to %s: visitors who follow it leave the edges", u)
	}
}

// cached returns what an edge does with a response, as a phrase that follows "will be".
func cached(resp *http.Response) string {
	now := time.Now()
	s := &httpcache.Stored{Status: resp.StatusCode, Header: resp.Header, RequestTime: now, ResponseTime: now}
	said, mend := "it sends no Cache-Control",
		"; make it send Cache-Control: max-age=…, or set cache.default_ttl in fleet.yaml"
	if cc := resp.Header.Values("Cache-Control"); len(cc) > 0 {
		said, mend = "Cache-Control: "+strings.Join(cc, ", "), ""
	}
	if ok, why := (httpcache.Policy{}).Storable(http.Header{}, s); !ok {
		return fmt.Sprintf("fetched from the origin for every request: %s (%s)%s", said, why, mend)
	}
	d, _ := httpcache.ResponseDirectives(resp.Header)
	life := s.Lifetime(httpcache.Policy{})
	switch {
	case d.NoCache || life.D <= 0:
		return fmt.Sprintf("stored, but revalidated with the origin for every request: %s%s", said, mend)
	case !life.Explicit:
		return fmt.Sprintf("cached for %s, a tenth of the time since its Last-Modified: %s%s", plainTime(life.D), said, mend)
	default:
		return fmt.Sprintf("cached for %s: %s", plainTime(life.D), said)
	}
}

// plainTime returns a duration in plain words, rounded.
func plainTime(d time.Duration) string {
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}} {
		if n := int(d.Round(u.d) / u.d); d >= 2*u.d || d == u.d {
			return words.Count(n, u.name)
		}
	}
	return words.Count(int(max(d, 0)/time.Second), "second")
}

var assetRE = regexp.MustCompile(`(?i)(?:src|href)\s*=\s*["']?(/[^/"'\s<>?#][^"'\s<>?#]*\.(?:css|js|mjs|png|jpe?g|webp|avif|svg|woff2))["'\s>?#]`)

// assetOf returns the path of a file on the same server that a page uses, or "".
func assetOf(page []byte) string {
	if m := assetRE.FindSubmatch(page); m != nil {
		return string(m[1])
	}
	return ""
}
