package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// origin is the origin of all peers. The path /SIZE/N is object N with that size. Its bytes are the
// same in each run. The origin counts requests.
type origin struct {
	addr   string
	server http.Server
	// hot counts requests for objects below coldFrom; cold counts the others.
	hot, cold atomic.Int64
	loaded    chan loaded // reports of the page
}

// coldFrom is the number of the first object that no case requests twice.
const coldFrom = 1 << 30

// unstoredFrom is the number of the first object that caches must not store.
const unstoredFrom = 1 << 40

var modified = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newOrigin() (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{addr: l.Addr().String(), loaded: make(chan loaded, 1)}
	o.server.Handler = o
	go func() { _ = o.server.Serve(l) }() // until the program ends
	return o, nil
}

// ServeHTTP answers a peer.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if o.servePage(w, r) {
		return
	}
	obj, err := parseObject(r.URL.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if obj.n >= coldFrom {
		o.cold.Add(1)
	} else {
		o.hot.Add(1)
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "public, max-age=86400")
	if obj.n >= unstoredFrom {
		h.Set("Cache-Control", "private, no-store")
	}
	h.Set("ETag", obj.etag())
	http.ServeContent(w, r, "", modified, io.NewSectionReader(obj, 0, obj.size))
}

// object is an object of the origin. It implements io.ReaderAt.
type object struct{ size, n int64 }

func parseObject(path string) (object, error) {
	size, n, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	s, err1 := strconv.ParseInt(size, 10, 64)
	i, err2 := strconv.ParseInt(n, 10, 64)
	if err := errors.Join(err1, err2); !ok || err != nil {
		return object{}, fmt.Errorf("no object: %s: %w", path, err)
	}
	return object{s, i}, nil
}

func (o object) path() string { return fmt.Sprintf("/%d/%d", o.size, o.n) }

func (o object) etag() string { return fmt.Sprintf(`"%d-%d"`, o.size, o.n) }

// noise has the bytes of all objects. It does not compress. Each object begins at another offset.
var noise = makeNoise()

func makeNoise() []byte {
	b := make([]byte, 1<<20+7) // no block size divides this length
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// ReadAt implements io.ReaderAt.
func (o object) ReadAt(p []byte, off int64) (n int, err error) {
	if left := o.size - off; int64(len(p)) > left {
		p, err = p[:max(left, 0)], io.EOF
	}
	for n < len(p) {
		n += copy(p[n:], noise[(off+int64(n)+o.n*4099)%int64(len(noise)):])
	}
	return n, err
}
