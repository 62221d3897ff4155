package front

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// aboutErrors are the fields of an error that describe its body.
var aboutErrors = []string{"Accept-Ranges", "Content-Digest", "Content-Disposition", "Content-Encoding",
	"Content-Language", "Content-Md5", "Content-Range", "Digest", "Etag", "Last-Modified", "Repr-Digest", "Trailer"}

// SetErrorPages sets which pages browsers get in place of the bodies of errors. page returns nil if
// there is none for a status. own means that the error is the edge's own.
func (r *Exchange) SetErrorPages(page func(status int, own bool) []byte) { r.pages = page }

// ownPage returns the site's page for an error of the edge itself, or nil.
func (r *Exchange) ownPage(status int) []byte {
	r.isOwn = true
	if r.pages == nil || r.Peer {
		return nil
	}
	return r.pages(status, true)
}

// replaceError makes a header block that of the page for an origin's error, if there is one and the
// client is a browser. Write then drops the origin's body.
func (r *Exchange) replaceError(status int) {
	if r.pages == nil || r.isOwn || r.Peer || status < 400 {
		return
	}
	page := r.pages(status, false)
	if page == nil {
		return
	}
	h := r.Header()
	h["Vary"] = append(slices.Clip(h["Vary"]), "Accept") // its own values may be stored ones
	if httpcache.PreferredType(r.Request.Header["Accept"], "text/html", problemJSON,
		"application/json") != "text/html" {
		return
	}
	for _, name := range aboutErrors {
		delete(h, name)
	}
	h["Content-Type"] = []string{"text/html; charset=utf-8"}
	h["Content-Length"] = []string{strconv.Itoa(len(page))}
	r.page = page
}

// sendPage sends the page that replaces the origin's body, after its header block.
func (r *Exchange) sendPage() {
	page := r.page
	if page == nil || r.Request.Method == http.MethodHead {
		return
	}
	r.page = nil
	if _, err := r.Write(page); err == nil {
		_ = r.FlushError() // the origin's body may take its time
	}
	r.page = page
}
