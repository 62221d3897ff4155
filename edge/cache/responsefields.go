package cache

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// errFraming is the error of a response whose end the origin and the edge may see in different
// places.
var errFraming = errors.New("the origin sent Content-Length or Transfer-Encoding with a space before the colon")

// fetch sends a request on, and cleans what comes: nothing else in the edge asks an origin or a
// peer. Fields of the connection to the origin, and names that are none, are not to be stored or
// passed on. covered says that the answer is of another edge, and is covered by a soft purge.
func (s *Cache) fetch(site *site.Site, r *http.Request, o origin.FetchOptions, stage origin.Stage) (resp *http.Response,
	covered bool, err error) {
	if interim := o.Interim; interim != nil {
		o.Interim = func(status int, h http.Header) {
			cleanInterim(h)
			interim(status, h)
		}
	} else { // ReverseProxy passes them on, by a trace of its own
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(_ int, fields textproto.MIMEHeader) error {
				cleanInterim(http.Header(fields))
				return nil
			}}))
	}
	resp, err = site.Origin.Fetch(r, o, stage)
	if err != nil {
		return nil, false, err
	}
	covered = purge.Lacks(r.Header, resp.Header)
	err = cleanResponse(resp)
	if resp.StatusCode < 100 { // net/http takes it, and can't send it
		err = fmt.Errorf("the origin answered with the status %03d, which is none (RFC 9110, 15)", resp.StatusCode)
	}
	if err != nil {
		resp.Body.Close()
		return nil, false, err
	}
	return resp, covered, nil
}

// cleanInterim is called before those who pass an interim response on. Its end is that of its
// header block, whatever that says.
func cleanInterim(h http.Header) {
	_ = mendNames(h)
	httpcache.RemoveHopByHop(h)
	delete(h, "Content-Length")
	deleteOwn(h)
}

// cleanResponse makes of an origin's answer one that is framed by the edge alone. What the
// message's length is said to be is left where it is true.
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

// mendNames removes the whitespace that an origin put between a field's name and the colon (RFC
// 9112, 5.1), and fields whose names are none. It fails with errFraming.
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

// deleteOwn removes the fields that edges tell each other something in.
func deleteOwn(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Kaiku-") {
			delete(h, name)
		}
	}
}

// trailerBody is the body of a response, at whose end trailers are cleaned.
type trailerBody struct {
	io.ReadCloser
	resp *http.Response
}

// Unwrap returns the body as it came from the origin.
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

// edgeFields are the fields of a response that are for the edge alone: tags for purges, directives,
// and other ways to the origin (RFC 7838), which are no way to the edge. They are stored, and
// clients don't see them.
var edgeFields = []string{"Alt-Svc", "Surrogate-Key", "Cache-Tag", "Surrogate-Control", "X-Magento-Tags",
	"X-Cache-Tags", "Cache-Tags", "Purge-Cache-Tags", "Xkey"}

// hideEdgeFields removes them from a response, unless it is for another edge.
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
