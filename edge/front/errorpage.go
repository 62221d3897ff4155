package front

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// errorPage describes a response in which the edge itself reports an error. Its JSON is that of
// problem details (RFC 9457).
type errorPage struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	ID     string `json:"request_id"` // in the access log too
	Edge   string `json:"edge"`
	Time   string `json:"time"`
	Host   string `json:"-"`
	What   string `json:"-"` // what happened, for a visitor
	Advice string `json:"-"` // what the visitor can do
}

const problemJSON = "application/problem+json"

//go:embed errorpage.html
var errorHTML string

// explanation is what a page tells a visitor about a status.
type explanation struct{ what, advice string }

var explanations = map[int]explanation{
	http.StatusForbidden: {"You may not see this page",
		"The site refuses this request. If you think that it should not, tell the site's owner."},
	http.StatusRequestTimeout: {"The request arrived too slowly",
		"Check your connection and try again."},
	http.StatusMisdirectedRequest: {"This site is not served here",
		"Check the address. If you run the site: its name leads to this server, which has no site of that name."},
	http.StatusTooManyRequests: {"Too many requests",
		"Your network sends more requests than this site accepts. Wait a moment and try again."},
	http.StatusInternalServerError: {"Something went wrong on this server",
		"Try again in a minute. The site's owner can find the cause by the request below."},
	http.StatusBadGateway: {"The site can't be reached",
		"This server works, but the site behind it doesn't answer properly. Try again in a minute."},
	http.StatusServiceUnavailable: {"The site is busy",
		"Try again in a moment."},
	http.StatusGatewayTimeout: {"The site takes too long to answer",
		"This server works, but the site behind it did not answer in time. Try again in a minute."},
}

// ErrorBody returns the body of an error of the edge itself, and sets its Content-Type: a page for
// browsers, problem details for clients that ask for JSON, and a line of text for all others.
// detail is the reason in a few words, or "".
func (x *Exchange) ErrorBody(status int, detail string) []byte {
	h, page := x.Header(), x.ownPage(status)
	form := ""
	if !x.Peer {
		form = httpcache.PreferredType(x.Request.Header["Accept"], "text/html", problemJSON, "application/json")
	}
	if form == "" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		if detail != "" {
			detail = ": " + detail
		}
		return []byte(http.StatusText(status) + detail + "\n")
	}
	if form == "text/html" && page != nil {
		h.Set("Content-Type", "text/html; charset=utf-8")
		return page
	}
	x.id = fmt.Sprintf("%016x", rand.Uint64())
	p := &errorPage{Title: http.StatusText(status), Status: status, Detail: detail, ID: x.id, Edge: x.server.Name,
		Time: time.Now().UTC().Format(time.RFC3339), Host: x.Request.Host}
	if form != "text/html" {
		h.Set("Content-Type", problemJSON)
		b, _ := json.Marshal(p) // strings and a number never fail
		return append(b, '\n')
	}
	e, ok := explanations[status]
	if !ok {
		e = explanation{"This request can't be answered", "Check the address, or go back and try again."}
	}
	p.What, p.Advice = e.what, e.advice
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	return p.html()
}

// html returns the page. html/template would keep the linker from leaving out methods (5 MB).
func (p *errorPage) html() []byte {
	fields := []string{"$Status", strconv.Itoa(p.Status)}
	for name, value := range map[string]string{"$Title": p.Title, "$Detail": cmp.Or(p.Detail, "refused"), "$ID": p.ID,
		"$Edge": p.Edge, "$Time": p.Time, "$Host": p.Host, "$What": p.What, "$Advice": p.Advice} {
		fields = append(fields, name, html.EscapeString(value))
	}
	return []byte(strings.NewReplacer(fields...).Replace(errorHTML))
}
