package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// Limits of a sitemap (sitemaps.org). The number of sitemaps in an index has the same limit as the
// number of URLs in a sitemap.
const (
	maxSitemap     = 50 << 20 // bytes, uncompressed
	maxSitemapURLs = 50_000
)

// readSitemap calls use with the URLs of a sitemap, or with those of each sitemap of an index.
func readSitemap(ctx context.Context, url string, use func(urls []string) error) error {
	urls, sitemaps, err := fetchSitemap(ctx, url)
	if err != nil {
		return err
	}
	if len(urls) > 0 || len(sitemaps) == 0 {
		return use(urls)
	}
	for _, s := range sitemaps {
		urls, nested, err := fetchSitemap(ctx, s)
		if err != nil {
			return err
		}
		if len(nested) > 0 {
			return fmt.Errorf("sitemap %s: an index in an index", s)
		}
		if err := use(urls); err != nil {
			return err
		}
	}
	return nil
}

func fetchSitemap(ctx context.Context, url string) (urls, sitemaps []string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("sitemap %s: %w", url, err)
		}
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := (&http.Client{Timeout: 5 * time.Minute}).Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, errors.New(resp.Status)
	}
	return parseSitemap(resp.Body)
}

// parseSitemap reads a sitemap or a sitemap index. It may be compressed with gzip.
func parseSitemap(in io.Reader) (urls, sitemaps []string, err error) {
	body := bufio.NewReader(in)
	var text io.Reader = body
	if magic, _ := body.Peek(2); string(magic) == "\x1f\x8b" {
		if text, err = gzip.NewReader(body); err != nil {
			return nil, nil, err
		}
	}
	limited := &io.LimitedReader{R: text, N: maxSitemap + 1}
	d := xml.NewDecoder(limited)
	for {
		token, err := d.Token()
		if limited.N <= 0 {
			return nil, nil, fmt.Errorf("more than %s", config.Size(maxSitemap))
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "url" && start.Name.Local != "sitemap" {
			continue
		}
		var e struct {
			Loc string `xml:"loc"`
		}
		if err := d.DecodeElement(&e, &start); err != nil {
			return nil, nil, err
		}
		to := &urls
		if start.Name.Local == "sitemap" {
			to = &sitemaps
		}
		if e.Loc = strings.TrimSpace(e.Loc); e.Loc != "" {
			*to = append(*to, e.Loc)
		}
		if len(*to) > maxSitemapURLs {
			return nil, nil, fmt.Errorf("more than %d URLs", maxSitemapURLs)
		}
	}
	if len(urls)+len(sitemaps) == 0 {
		return nil, nil, errors.New("it has no URLs")
	}
	return urls, sitemaps, nil
}
