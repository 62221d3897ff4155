package cache

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// errFraming is the error of a response for which the origin and the edge may not agree where it
// ends.
var errFraming = errors.New("the origin sent Content-Length or Transfer-Encoding with a space before the colon")

// fetch sends a request to an origin or a peer, and cleans the response. Nothing else in the edge
// does so. It removes fields of the connection to the origin, and fields with invalid names.
// covered means that the response comes from another edge, and that a soft purge covers it.
func (s *Cache) fetch(site *site.Site, r *http.Request, o origin.FetchOptions, stage origin.Stage) (resp *http.Response,
	covered bool, err error) {
	interim := o.Interim
	o.Interim = func(status int, h http.Header) {
		cleanInterim(h)
		interim(status, h)
	}
	resp, err = site.Origin.Fetch(r, o, stage)
	if err != nil {
		return nil, false, err
	}
	covered = purge.Behind(r.Header, resp.Header)
	err = cleanResponse(resp)
	if resp.StatusCode < 100 { // net/http accepts such a status, but can't send it
		err = fmt.Errorf("the origin sent the invalid status %03d (RFC 9110, 15)", resp.StatusCode)
	}
	if err != nil {
		resp.Body.Close()
		return nil, false, err
	}
	return resp, covered, nil
}

// cleanInterim cleans an interim response before it is passed on. Such a response ends with its
// header block, whatever its fields say.
func cleanInterim(h http.Header) {
	_ = mendNames(h)
	httpcache.RemoveHopByHop(h)
	delete(h, "Content-Length")
	deleteOwn(h)
}

// cleanResponse removes the origin's framing from a response, so that the edge alone frames it. It
// keeps Content-Length if that is right.
func cleanResponse(resp *http.Response) error {
	h := resp.Header
	if err := mendNames(h); err != nil {
		return err
	}
	upgrade := h["Upgrade"]
	httpcache.RemoveHopByHop(h)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, upgrade
	}
	if len(h["Content-Length"]) > 1 || resp.ContentLength < 0 {
		delete(h, "Content-Length") // over HTTP/2 there may be several
	}
	deleteOwn(h)
	if resp.Body != http.NoBody && resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = &trailerBody{resp.Body, resp}
	}
	return nil
}

// mendNames removes whitespace between a field's name and the colon (RFC 9112, 5.1), and fields
// with invalid names. It returns errFraming if such whitespace follows the name of a framing field.
func mendNames(h http.Header) (err error) {
	for name, lines := range h {
		if httpcache.IsToken(name) {
			continue
		}
		delete(h, name)
		mended := http.CanonicalHeaderKey(strings.TrimRight(name, " "))
		switch {
		case mended == "Content-Length", mended == "Transfer-Encoding":
			err = errFraming
		case httpcache.IsToken(mended):
			h[mended] = append(h[mended], lines...)
		}
	}
	return err
}

// deleteOwn removes the fields that edges exchange with each other.
func deleteOwn(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Kaiku-") {
			delete(h, name)
		}
	}
}

// trailerBody is the body of a response. At its end it cleans the trailers.
type trailerBody struct {
	io.ReadCloser
	resp *http.Response
}

// Unwrap returns the body from the origin.
func (b *trailerBody) Unwrap() io.ReadCloser { return b.ReadCloser }

// Read reads on.
func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		for name := range b.resp.Trailer {
			if !httpcache.IsToken(name) || !httpguts.ValidTrailerHeader(name) {
				delete(b.resp.Trailer, name)
			}
		}
		deleteOwn(b.resp.Trailer)
	}
	return n, err
}

// edgeFields are the response fields that are for the edge alone: tags for purges, directives, and
// alternative services of the origin (RFC 7838). They are stored, and clients don't get them.
var edgeFields = []string{"Alt-Svc", "Surrogate-Key", "Cache-Tag", "Surrogate-Control", "X-Magento-Tags",
	"X-Cache-Tags", "Cache-Tags", "Purge-Cache-Tags", "Xkey"}

// hideEdgeFields removes edgeFields from a response, unless it is for another edge.
func (x *exchange) hideEdgeFields(h http.Header) {
	if x.peer {
		return
	}
	for _, name := range edgeFields {
		delete(h, name)
	}
}

// setPurgePosition sets the position in the log of purges up to which no purge covers a response to
// a peer. The peer stores the response only if it has applied no later purge that covers it.
func (s *Cache) setPurgePosition(x *exchange, h http.Header) {
	if !x.peer || s.Purger.Purges == nil {
		return
	}
	p := x.position
	if x.covered {
		p = storage.Position{}
	}
	purge.WritePosition(h, p)
}
