package cache

import (
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// conditional are the conditions on which the answer to a GET is 304.
var conditional = []string{"If-None-Match", "If-Modified-Since"}

// passConditions has the request to the origin have those of the client. It is for a response that
// can't be stored, so that nobody else wants the whole of it.
func (t *fetch) passConditions(client http.Header) {
	for _, name := range conditional {
		if lines, ok := client[name]; ok {
			t.request.Header[name] = lines
			t.conditions = true
		}
	}
}

// storable reports whether an answer may be stored, and if not, why. A 304 to the client's own
// conditions never is. If what it is about could be, there is no reason, and the next request is
// for the whole.
func (t *fetch) storable(answer *httpcache.Stored) (ok bool, why string) {
	if !t.conditions || answer.Status != http.StatusNotModified {
		return t.site.Policy.Storable(t.client, answer)
	}
	whole := *answer
	whole.Status = http.StatusOK
	_, why = t.site.Policy.Storable(t.client, &whole)
	return false, why
}

// notModified makes a 304 of a response that the client has already. It was fetched without the
// client's conditions, as it was not known that it can't be stored.
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
