package cache

import (
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// conditional are the request fields on which the response to a GET can be a 304.
var conditional = []string{"If-None-Match", "If-Modified-Since"}

// passConditions copies the client's conditions to the request for the origin. It is for a response
// that can't be stored, so that no other request needs its body.
func (t *fetch) passConditions(client http.Header) {
	for _, name := range conditional {
		if lines, ok := client[name]; ok {
			t.request.Header[name] = lines
			t.conditions = true
		}
	}
}

// storable reports whether a response may be stored, and if not, why. A 304 to the client's own
// conditions may never be stored. If a 200 in its place could be stored, why is "", and the next
// request is sent without conditions.
func (t *fetch) storable(answer *httpcache.Stored) (ok bool, why string) {
	if !t.conditions || answer.Status != http.StatusNotModified {
		return t.site.Policy.Storable(t.client, answer)
	}
	whole := *answer
	whole.Status = http.StatusOK
	_, why = t.site.Policy.Storable(t.client, &whole)
	return false, why
}

// notModified turns a response that the client already has into a 304. The response was fetched
// without the client's conditions, because the edge did not know yet that it can't be stored.
func notModified(r *http.Request, resp *http.Response) {
	answer := httpcache.Stored{Status: resp.StatusCode, Header: resp.Header, ResponseTime: time.Now()}
	if r.Method != http.MethodGet || !answer.NotModified(r.Header) {
		return
	}
	resp.Body.Close()
	resp.StatusCode, resp.Status, resp.Body, resp.ContentLength = http.StatusNotModified, "", http.NoBody, 0
	for _, name := range aboutBody {
		delete(resp.Header, name)
	}
	delete(resp.Header, "Trailer")
	resp.Trailer = nil
}
