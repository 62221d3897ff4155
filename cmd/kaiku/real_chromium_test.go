//go:build real

package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/demo"
)

// page has pictures, CSS, a script, and a video in which the script seeks. Then the script reports
// what the browser did.
const page = `<!doctype html><html><head><meta charset="utf-8"><link rel="stylesheet" href="/style.css"><title>x</title></head><body>
<h1 id="h">Helsinki</h1><img src="/a.png"><img src="/b.png"><img src="/c.png"><video id="v" src="/film.webm" muted preload="auto" width="160"></video>
<script src="/script.js"></script></body></html>`

const pageScript = `
const v = document.getElementById('v');
const once = (e, n) => new Promise((ok, no) => { e.addEventListener(n, ok, {once: true}); v.addEventListener('error', () => no(new Error('video: ' + (v.error && v.error.message))), {once: true}); });
(async () => {
  const out = {seeks: [], error: ''};
  try {
    if (v.readyState < 1) await once(v, 'loadedmetadata');
    out.duration = v.duration;
    for (const t of [9, 1, 6]) { const done = once(v, 'seeked'); v.currentTime = t; await done; out.seeks.push(v.currentTime); }
    if (document.readyState !== 'complete') await once(window, 'load');
  } catch (e) { out.error = String(e); }
  out.color = getComputedStyle(document.getElementById('h')).color;
  out.pictures = [...document.images].map(i => i.naturalWidth);
  out.protocols = {};
  for (const e of [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]) {
    const path = new URL(e.name).pathname; // an entry of what came from the browser's cache names no protocol
    out.protocols[path] = e.nextHopProtocol || out.protocols[path] || '';
  }
  await fetch('/result', {method: 'POST', body: JSON.stringify(out)});
})();`

// seen is the report of the page.
type seen struct {
	Error     string            `json:"error"`
	Duration  float64           `json:"duration"`
	Seeks     []float64         `json:"seeks"`
	Color     string            `json:"color"`
	Pictures  []int             `json:"pictures"`
	Protocols map[string]string `json:"protocols"`
}

// pageOrigin serves a page with a film, and receives the report of the page's script.
type pageOrigin struct {
	*httptest.Server
	reports chan seen
	ranges  atomic.Int64 // number of range requests
	files   map[string][]byte
}

var pageTypes = map[string]string{"": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript",
	".png": "image/png", ".webm": "video/webm"}

// newPageOrigin creates the film in a folder, and starts the origin.
func newPageOrigin(t *testing.T, dir string) *pageOrigin {
	t.Helper()
	film := filepath.Join(dir, "film.webm")
	if out, err := exec.CommandContext(t.Context(), need(t, "ffmpeg"), "-v", "error", "-f", "lavfi", "-i",
		"testsrc2=size=640x360:rate=25:duration=10", "-c:v", "libvpx", "-b:v", "3M", "-g", "25",
		film).CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
	video, err := os.ReadFile(film)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := base64.StdEncoding.DecodeString("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
	if err != nil {
		t.Fatal(err)
	}
	o := &pageOrigin{reports: make(chan seen, 10), files: map[string][]byte{"/": []byte(page),
		"/style.css": []byte("h1 { color: rgb(1, 2, 3) }"), "/script.js": []byte(pageScript), "/a.png": picture,
		"/b.png": picture, "/c.png": picture, "/film.webm": video}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

// ServeHTTP implements http.Handler.
func (o *pageOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.URL.Path == "/result" {
		var s seen
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&s); err == nil {
			o.reports <- s
		}
		return
	}
	body, ok := o.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.Header.Get("Range") != "" {
		o.ranges.Add(1)
	}
	w.Header().Set("Content-Type", pageTypes[filepath.Ext(r.URL.Path)])
	w.Header().Set("Cache-Control", "s-maxage=3600, max-age=0") // the browser must revalidate each time
	w.Header().Set("ETag", strconv.Quote(strconv.Itoa(len(body))))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// A browser loads a whole page over HTTP/3.
func TestRealChromium(t *testing.T) {
	chromium := need(t, "chromium")
	dir := fleetDir(t, "k")
	o := newPageOrigin(t, dir)
	edge := startSecureEdges(t, kaikuBinary(t), dir, o.URL, "hel1")[0]
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "www.example.com.pem"),
		filepath.Join(dir, "www.example.com.key"))
	if err != nil {
		t.Fatal(err)
	}
	spki := sha256.Sum256(pair.Leaf.RawSubjectPublicKeyInfo)
	site := "www.example.com:" + port(edge.https)
	// A browser that learns of HTTP/3 by Alt-Svc wants a certificate of a publicly trusted
	// authority, which a test can't get. So a flag forces HTTP/3.
	stop := startBrowser(t, chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--autoplay-policy=no-user-gesture-required",
		"--user-data-dir="+t.TempDir(), "--host-resolver-rules=MAP www.example.com 127.0.0.1",
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(spki[:]),
		"--enable-quic", "--remote-debugging-port=0", "--origin-to-force-quic-on="+site, "https://"+site+"/")
	defer stop()
	var s seen
	select {
	case s = <-o.reports:
	case <-time.After(60 * time.Second):
		t.Fatal("the page reports nothing")
	}
	if s.Error != "" || len(s.Seeks) != 3 || s.Duration < 9 || s.Color != "rgb(1, 2, 3)" ||
		fmt.Sprint(s.Pictures) != "[1 1 1]" {
		t.Errorf("the page is not complete: %+v", s)
	}
	for path := range o.files {
		if s.Protocols[path] != "h3" {
			t.Errorf("%s came by %q", path, s.Protocols[path])
		}
	}
	t.Logf("%+v", s)
	if o.ranges.Load() == 0 {
		t.Error("the edge asked for no range of the film")
	}
}

// The demo's page is no wider than a phone, and shows all columns of its table, in light and
// dark mode.
func TestRealDemoPage(t *testing.T) {
	chromium := need(t, "chromium")
	const measure = `addEventListener("load", () => {
  const look = () => {
    if (document.querySelectorAll("#files tr").length < files.length) return setTimeout(look, 20);
    const cell = document.querySelector("#files tr:last-child td:last-child");
    fetch("/result", { method: "POST", body: JSON.stringify({
      screen: document.documentElement.clientWidth, page: document.documentElement.scrollWidth,
      table: Math.ceil(cell.getBoundingClientRect().right), paper: getComputedStyle(document.body).backgroundColor }) });
  };
  look();
});`
	type result struct {
		Screen, Page, Table int
		Paper               string
	}
	results := make(chan result, 1)
	site := demo.NewSite()
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/result":
			var m result
			if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&m); err == nil {
				results <- m
			}
		case "/frame": // a browser window can't be as narrow as a phone
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<iframe src="/" width="%s" height="800" frameborder="0"></iframe>`, r.FormValue("width"))
		case "/app.js":
			rec := httptest.NewRecorder()
			site.ServeHTTP(rec, r)
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprintf(w, "%s\n%s", rec.Body, measure)
		default:
			site.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(o.Close)
	papers := map[string]bool{}
	for _, width := range []int{390, 1280} {
		for _, look := range [][]string{nil, {"--force-dark-mode", "--blink-settings=preferredColorScheme=0"}} {
			args := append([]string{"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
				"--no-first-run", "--disable-background-networking",
				"--remote-debugging-port=0", "--user-data-dir=" + t.TempDir(), "--window-size=1400,900"}, append(look,
				fmt.Sprintf("%s/frame?width=%d", o.URL, width))...)
			end := startBrowser(t, chromium, args...)
			select {
			case m := <-results:
				if m.Screen > width || m.Screen < width-20 || m.Page > m.Screen || m.Table > m.Screen {
					t.Errorf("%d pixels: %+v", width, m)
				}
				papers[m.Paper] = true
			case <-time.After(time.Minute):
				t.Error("the page sends nothing")
			}
			end()
		}
	}
	if len(papers) != 2 {
		t.Errorf("light and dark look like %v", papers)
	}
}

// startBrowser starts a browser, which runs until end is called.
func startBrowser(t *testing.T, program string, args ...string) (end func()) {
	t.Helper()
	browser := exec.CommandContext(t.Context(), program, args...)
	browser.Stdout, browser.Stderr = t.Output(), t.Output()
	browser.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has child processes
	if err := browser.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = syscall.Kill(-browser.Process.Pid, syscall.SIGKILL)
		_ = browser.Wait()
	}
}
