package httpcache

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const anEtag = `Etag: "x"`

var (
	noFields   = http.Header{}
	authorized = header("Authorization: Basic eDp5")
)

// storables are responses, and why they may not be stored.
var storables = []struct {
	name    string
	request http.Header
	s       *Stored
	why     string // part of the reason; "" means storable
}{
	{"max-age", noFields, response(200, "Cache-Control: max-age=60"), ""},
	{"s-maxage", noFields, response(200, "Cache-Control: s-maxage=60"), ""},
	{"Expires", noFields, response(200, "Expires: "+at(time.Hour)), ""},
	{"heuristic", noFields, response(200, "Last-Modified: "+at(-time.Hour)), ""},
	{"only a validator", noFields, response(200, anEtag), ""},
	{"nothing to keep it for", noFields, response(200), "a lifetime of 0 and no validator"},

	{"interim", noFields, response(103, "Cache-Control: max-age=60"), "interim"},
	{"partial", noFields, response(206, "Cache-Control: max-age=60", anEtag), "partial"},
	{"not modified", noFields, response(304, "Cache-Control: max-age=60", anEtag), "not modified"},

	{"no-store", noFields, response(200, "Cache-Control: no-store, max-age=60"), "no-store"},
	{"no-store in upper case", noFields, response(200, "Cache-Control: max-age=60", "Cache-Control: NO-STORE"),
		"no-store"},
	{"no-store in the request", header("Cache-Control: no-store"), response(200, "Cache-Control: max-age=60"),
		"no-store in the request"},
	{"no-cache in the request", header("Cache-Control: no-cache"), response(200, "Cache-Control: max-age=60"), ""},
	{"private", noFields, response(200, "Cache-Control: private, max-age=60"), "private"},
	{"private and public", noFields, response(200, "Cache-Control: public, private, max-age=60"), "private"},
	{"private and s-maxage", noFields, response(200, "Cache-Control: private, s-maxage=60"), "private"},
	{"private for a field", noFields, response(200, `Cache-Control: private="Set-Cookie", max-age=60`), ""},
	{"private for what is no field", noFields, response(200, `Cache-Control: private="a b", max-age=60`), "private"},
	{"no-cache with a validator", noFields, response(200, "Cache-Control: no-cache", anEtag), ""},

	// RFC 9111, section 5.2.2.3.
	{"must-understand, known status", noFields, response(200, "Cache-Control: must-understand, no-store, max-age=60"),
		""},
	{"must-understand, unknown status", noFields, response(299, "Cache-Control: must-understand, max-age=60"),
		"must-understand"},
	{"must-understand, unknown status, no-store", noFields,
		response(299, "Cache-Control: must-understand, no-store, max-age=60"), "must-understand"},
	{"must-understand with an argument permits nothing", noFields,
		response(200, "Cache-Control: must-understand=0, no-store, max-age=60"), "no-store"},
	{"must-understand and private", noFields, response(200, "Cache-Control: must-understand, private, max-age=60"),
		"private"},

	// RFC 9111, section 3.5.
	{"Authorization", authorized, response(200, "Cache-Control: max-age=60", anEtag), "Authorization"},
	{"Authorization, heuristic", authorized, response(200, "Last-Modified: "+at(-time.Hour)), "Authorization"},
	{"Authorization, no-cache", authorized, response(200, "Cache-Control: no-cache", anEtag), "Authorization"},
	{"Authorization, proxy-revalidate", authorized, response(200, "Cache-Control: proxy-revalidate, max-age=60"),
		"Authorization"},
	{"Authorization, public", authorized, response(200, "Cache-Control: public, max-age=60"), ""},
	{"Authorization, must-revalidate", authorized, response(200, "Cache-Control: must-revalidate, max-age=60"), ""},
	{"Authorization, s-maxage", authorized, response(200, "Cache-Control: s-maxage=60"), ""},
	{"Authorization, public with an argument", authorized, response(200, "Cache-Control: public=1, max-age=60"),
		"Authorization"},
	{"Authorization, s-maxage invalid", authorized, response(200, "Cache-Control: s-maxage=x, max-age=60", anEtag),
		"Authorization"},
	{"Authorization, public and private", authorized, response(200, "Cache-Control: public, private"), "private"},
	{"Authorization, empty", header("Authorization:"), response(200, "Cache-Control: max-age=60"), "Authorization"},

	{"Vary: *", noFields, response(200, "Cache-Control: max-age=60", "Vary: Accept, *"), "Vary"},
	{"Vary", noFields, response(200, "Cache-Control: max-age=60", "Vary: Accept"), ""},

	{"302", noFields, response(302, anEtag), "no freshness"},
	{"302 with max-age", noFields, response(302, "Cache-Control: max-age=60"), ""},
	{"302 with Expires", noFields, response(302, "Expires: "+at(time.Hour)), ""},
	{"302 with public", noFields, response(302, "Cache-Control: public", anEtag), ""},
	{"500", noFields, response(500, anEtag), "no freshness"},
	{"500 with max-age", noFields, response(500, "Cache-Control: max-age=60"), ""},
	{"404", noFields, response(404, anEtag), ""},
	{"599 with max-age", noFields, response(599, "Cache-Control: max-age=60"), ""},

	{"Set-Cookie", noFields, response(200, "Set-Cookie: a=b", "Last-Modified: "+at(-time.Hour)), "Set-Cookie"},
	{"Set-Cookie, public", noFields, response(200, "Set-Cookie: a=b", "Cache-Control: public",
		"Last-Modified: "+at(-time.Hour)), "Set-Cookie"},
	{"Set-Cookie, explicit", noFields, response(200, "Set-Cookie: a=b", "Cache-Control: max-age=60"), "Set-Cookie"},
	{"Set-Cookie, for one client", noFields,
		response(200, "Set-Cookie: a=b", `Cache-Control: max-age=60, private="set-cookie"`), ""},
	{"Set-Cookie, to be validated", noFields,
		response(200, "Set-Cookie: a=b", `Cache-Control: max-age=60, no-cache="set-cookie"`), ""},
	{"416", noFields, response(416, "Cache-Control: max-age=60", "Content-Range: bytes */0"), "fields of this request"},
	{"412", noFields, response(412, "Cache-Control: max-age=60"), "fields of this request"},
	{"417", noFields, response(417, "Cache-Control: max-age=60"), "fields of this request"},

	{"stale on arrival", noFields, response(200, "Cache-Control: max-age=60", "Age: 60"), ""},
	{"part, private", noFields, response(206, "Content-Range: bytes 0-4/10", "Cache-Control: private, max-age=60"),
		"private"},
	{"part, no-store", noFields, response(206, "Content-Range: bytes 0-4/10", "Cache-Control: no-store, max-age=60"),
		"no-store"},
	{"part", noFields, response(206, "Content-Range: bytes 0-4/10", "Cache-Control: max-age=60"), ""},
	{"Vary by too many fields", noFields, response(200, "Cache-Control: max-age=60", "Vary: "+fieldNameList(33)),
		"Vary names more than 32"},
	{"Vary by many fields, some of them twice", noFields,
		response(200, "Cache-Control: max-age=60", "Vary: "+fieldNameList(32), "Vary: "+fieldNameList(32)), ""},
	{"Vary by the address", noFields, response(200, "Cache-Control: max-age=60", "Vary: X-Forwarded-For"), "Vary"},
	{"status 600", noFields, response(600, "Cache-Control: max-age=60"), "an invalid status"},
	{"not quite stale on arrival", noFields, response(200, "Cache-Control: max-age=60", "Age: 59"), ""},
	{"stale on arrival, with a validator", noFields, response(200, "Cache-Control: max-age=0", anEtag), ""},
	{"stale on arrival, with a date as validator", noFields,
		response(200, "Cache-Control: max-age=0", "Last-Modified: "+at(0)), ""},
	{"stale on arrival, with an invalid date", noFields, response(200, "Cache-Control: max-age=0", "Last-Modified: x"),
		"a lifetime of 0 and no validator"},
	{"stale on arrival, of use while stale", noFields,
		response(200, "Cache-Control: max-age=0, stale-while-revalidate=9"), ""},
	{"stale on arrival, of use on an error", noFields, response(200, "Cache-Control: max-age=0, stale-if-error=9"), ""},
}

// RFC 9111, section 3, and the sections that it refers to.
func TestStorable(t *testing.T) {
	for _, c := range storables {
		t.Run(c.name, func(t *testing.T) {
			ok, why := Policy{}.Storable(c.request, c.s)
			if ok != (c.why == "") || !strings.Contains(why, c.why) || ok && why != "" {
				t.Errorf("storable: %v (%q), want %q", ok, why, c.why)
			}
		})
	}
	if ok, why := (Policy{DefaultTTL: time.Hour}).Storable(noFields, response(200, "Set-Cookie: a=b")); ok ||
		!strings.Contains(why, "Set-Cookie") {
		t.Errorf("Set-Cookie under default_ttl: storable %v (%q)", ok, why)
	}
	if ok, why := (Policy{DefaultTTL: time.Hour}).Storable(noFields, response(200)); !ok {
		t.Errorf("under default_ttl: not storable, %q", why)
	}
}

// fieldNameList returns a list of n field names.
func fieldNameList(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("X-%d", i)
	}
	return strings.Join(names, ", ")
}

// RFC 9111, sections 5.2.2.4 and 5.2.2.7: the forms with field names.
func TestFieldsOfDirectives(t *testing.T) {
	s := response(200, `Cache-Control: private="set-cookie, x-user", no-cache="x-price", max-age=60`, "Set-Cookie: a=b",
		"X-User: u", "X-Price: 1", "X-Other: o")
	Policy{}.RemoveOwn(s)
	if want := header(`Cache-Control: private="set-cookie, x-user", no-cache="x-price", max-age=60`, "X-Price: 1",
		"X-Other: o"); !equalHeader(s.Header, want) {
		t.Errorf("left are %v", s.Header)
	}
	if got := s.Unvalidated(); !slices.Equal(got, []string{"X-Price"}) {
		t.Errorf("not to be used without validation: %q", got)
	}
}

func equalHeader(a, b http.Header) bool {
	for name := range a {
		if !slices.Equal(a[name], b[name]) {
			return false
		}
	}
	return len(a) == len(b)
}
