package promise

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// object is a URL whose content has versions.
type object struct {
	path   string
	tag    string
	prefix string
	size   int
	strict bool // must-revalidate: after a soft purge, it is revalidated before it is served
}

const (
	groups      = 6
	quietGroups = 2 // the last groups
	inGroup     = 4
	floodCount  = 50
)

// allObjects returns the objects that readers request. Each group has two strict ones, of which one
// has several chunks, and two that may be served stale.
func allObjects() []object {
	var all []object
	for g := range groups {
		for n := range inGroup {
			size := []int{300, 2000, 20_000, 300_000}[n]
			if g > 1 {
				size = min(size, 3000)
			}
			all = append(all, object{path: fmt.Sprintf("/g%d/o%d", g, n), tag: fmt.Sprintf("g%d", g),
				prefix: fmt.Sprintf("/g%d/", g), size: size, strict: n%2 == 1})
		}
	}
	return all
}

// floodObjects returns the objects for the flood of purges. Readers request them at the end only.
func floodObjects() []object {
	var all []object
	for n := range floodCount {
		all = append(all, object{path: fmt.Sprintf("/flood/%d", n), tag: "flood", prefix: "/flood/", size: 100,
			strict: true})
	}
	return all
}

// origin serves all objects in their current versions.
type origin struct {
	mu       sync.Mutex
	objects  map[string]object
	versions map[string]int
	delay    time.Duration
	delays   map[string]time.Duration // for paths with a delay of their own
	server   http.Server
}

func newOrigin(objects ...object) *origin {
	o := &origin{objects: map[string]object{}, versions: map[string]int{}, delays: map[string]time.Duration{}}
	for _, x := range objects {
		o.objects[x.path], o.versions[x.path] = x, 1
	}
	o.server.Handler = o
	return o
}

// serve answers requests until the listener is closed.
func (o *origin) serve(l net.Listener) { _ = o.server.Serve(l) }

// bump makes a new version of each object, and returns the versions.
func (o *origin) bump(paths []string) map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[string]int{}
	for _, p := range paths {
		o.versions[p]++
		out[p] = o.versions[p]
	}
	return out
}

// slow delays all answers. An answer has the version from the time of the request.
func (o *origin) slow(by time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.delay = by
}

// slowPath delays the answers for one path only.
func (o *origin) slowPath(path string, by time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.delays[path] = by
}

func (o *origin) now(path string) (object, int, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delay, own := o.delays[path]
	if !own {
		delay = o.delay
	}
	return o.objects[path], o.versions[path], delay
}

// ballast begins the paths of objects that fill the disks of edges: large, cacheable, and without a
// version.
const ballast, ballastSize = "/ballast/", 512 << 10

// ServeHTTP answers with the object's version at the time of the request.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, ballast) {
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Content-Length", strconv.Itoa(ballastSize))
		_, _ = w.Write(make([]byte, ballastSize))
		return
	}
	x, version, delay := o.now(r.URL.Path)
	if version == 0 {
		http.NotFound(w, r)
		return
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
	}
	h, etag := w.Header(), fmt.Sprintf(`"%d"`, version)
	h.Set("Cache-Control", "max-age=3600, stale-while-revalidate=60, stale-if-error=600")
	if x.strict {
		h.Set("Cache-Control", "max-age=3600, must-revalidate")
	}
	h.Set("ETag", etag)
	h.Set("Cache-Tag", x.tag)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	b := body(x, version)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client may be gone
}

// body returns the body of a version: a line with the version and a checksum of the rest, and the
// rest, as long as the object's size.
func body(x object, version int) []byte {
	seed := sha256.Sum256([]byte(x.path + strconv.Itoa(version)))
	rest := make([]byte, x.size)
	_, _ = rand.NewChaCha8(seed).Read(rest) // never fails
	sum := sha256.Sum256(rest)
	return append(fmt.Appendf(nil, "%s %d %s\n", x.path, version, hex.EncodeToString(sum[:])), rest...)
}

var errTorn = errors.New("the body is not that of a version")

// versionOf returns the version of a body. It fails with errTorn if the body is damaged.
func versionOf(x object, b []byte) (int, error) {
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) != 3 || f[0] != x.path {
		return 0, fmt.Errorf("%w of %s: it begins with %q", errTorn, x.path, shorten(string(line)))
	}
	version, err := strconv.Atoi(f[1])
	sum := sha256.Sum256(rest)
	if err != nil || len(rest) != x.size || f[2] != hex.EncodeToString(sum[:]) {
		return 0, fmt.Errorf("%w: %d bytes after %q", errTorn, len(rest), shorten(string(line)))
	}
	return version, nil
}

// read reads the version from a response. A body that is cut short is an error.
func read(x object, resp *http.Response) (int, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return 0, err
	}
	version, err := versionOf(x, b)
	if err == nil && resp.Header.Get("ETag") != fmt.Sprintf(`"%d"`, version) {
		return 0, fmt.Errorf("%w: the ETag is %s, the body is version %d", errTorn, resp.Header.Get("ETag"), version)
	}
	return version, err
}
