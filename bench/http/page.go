package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	pagePictures = 30
	pageDelay    = 20 * time.Millisecond // each way
	pageLoads    = 5                     // that are measured in a round, each by a new browser
	pageTimeout  = 30 * time.Second
)

// pageTypes has the files of the page beside its pictures, which are objects.
var pageTypes = map[string]string{"/page.html": "text/html; charset=utf-8", "/page.css": "text/css"}

// pageFile returns a file of the page. The page reports to the origin when it has loaded.
func (o *origin) pageFile(path string) string {
	if path == "/page.css" {
		return "body { font-family: sans-serif; background: #eee } img { border: 1px solid #999 }\n" +
			strings.Repeat("/* 20 KiB, as of a real page */\n", 20*kib/32)
	}
	var b strings.Builder
	fmt.Fprint(&b, `<!doctype html><title>A page</title><link rel="stylesheet" href="/page.css"><h1>A page</h1>`)
	for n := range pagePictures {
		fmt.Fprintf(&b, `<img src="%s" width="40" height="40" alt="">`, object{20 * kib, int64(n)}.path())
	}
	fmt.Fprintf(&b, `<script>
addEventListener("load", () => {
  const report = () => {
    const paint = performance.getEntriesByName("first-paint")[0];
    if (!paint) return setTimeout(report, 5);
    const pictures = performance.getEntriesByType("resource").filter(e => e.initiatorType == "img");
    fetch("http://%s/loaded", { method: "POST", mode: "no-cors", body: JSON.stringify({
      paint: paint.startTime, last: Math.max(...pictures.map(e => e.responseEnd)), pictures: pictures.length,
      protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol }) });
  };
  report();
});
</script>`, o.addr)
	return b.String()
}

// loaded is what a page reports. The times are milliseconds since the navigation began.
type loaded struct {
	Paint, Last float64
	Pictures    int
	Protocol    string
}

// servePage answers requests for the page, and takes its reports. It reports false for others.
func (o *origin) servePage(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path == "/loaded" {
		var l loaded
		if err := json.NewDecoder(io.LimitReader(r.Body, kib)).Decode(&l); err == nil {
			o.loaded <- l
		}
		return true
	}
	kind, ok := pageTypes[r.URL.Path]
	if ok {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "public, max-age=86400")
		o.hot.Add(1)
		http.ServeContent(w, r, "", modified, strings.NewReader(o.pageFile(r.URL.Path)))
	}
	return ok
}

// protocolFlags has Chromium's flags that leave it one protocol, and that protocol's name there.
func protocolFlags(proto, site string) (flags []string, name string) {
	switch proto {
	case "http3":
		return []string{"--enable-quic", "--origin-to-force-quic-on=" + site}, "h3"
	case "http2":
		return []string{"--disable-quic"}, "h2"
	}
	return []string{"--disable-quic", "--disable-http2"}, "http/1.1"
}

// measurePage has new browsers load the page, over a way with a delay.
func (b *bench) measurePage(ctx context.Context, i *instance, c testCase) (m sample, err error) {
	way, err := newRelay(i.addr(c.Proto), pageDelay)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, way.close()) }()
	if _, err := b.loadPage(ctx, way, c); err != nil { // the peer stores the page
		return m, err
	}
	asked, began := b.origin.hot.Load(), time.Now()
	var paints, lasts []float64
	for range pageLoads {
		l, err := b.loadPage(ctx, way, c)
		if err != nil {
			return m, err
		}
		paints, lasts = append(paints, 1000*l.Paint), append(lasts, 1000*l.Last)
	}
	m.Requests, m.Seconds, m.Origin = pageLoads, time.Since(began).Seconds(), b.origin.hot.Load()-asked
	m.Rate, m.RSS = pageLoads/m.Seconds, i.rss()
	m.Paint, m.Last = spreadOf(paints).Median, spreadOf(lasts).Median
	return m, nil
}

// loadPage has a new browser load the page.
func (b *bench) loadPage(ctx context.Context, way *relay, c testCase) (l loaded, err error) {
	pair, err := tls.LoadX509KeyPair(b.cert, b.key)
	if err != nil {
		return l, err
	}
	spki := sha256.Sum256(pair.Leaf.RawSubjectPublicKeyInfo)
	profile, err := os.MkdirTemp(b.dir, "browser")
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(profile)
	site := net.JoinHostPort(host, way.port)
	flags, protocol := protocolFlags(c.Proto, site)
	args := slices.Concat([]string{"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--user-data-dir=" + profile, "--remote-debugging-port=0",
		"--host-resolver-rules=MAP localhost 127.0.0.1",
		"--ignore-certificate-errors-spki-list=" + base64.StdEncoding.EncodeToString(spki[:])}, flags,
		[]string{"https://" + site + "/page.html"})
	browser := exec.Command("chromium", args...)
	browser.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	if err := browser.Start(); err != nil {
		return l, err
	}
	defer func() {
		_ = syscall.Kill(-browser.Process.Pid, syscall.SIGKILL)
		_ = browser.Wait()
	}()
	select {
	case l = <-b.origin.loaded:
	case <-time.After(pageTimeout):
		return l, fmt.Errorf("the page reports nothing in %v", pageTimeout)
	case <-ctx.Done():
		return l, ctx.Err()
	}
	if l.Pictures != pagePictures || l.Protocol != protocol {
		err = fmt.Errorf("%d pictures by %s, want %d by %s", l.Pictures, cmp.Or(l.Protocol, "nothing"), pagePictures,
			protocol)
	}
	return l, err
}
