package httpcache

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// RFC 9111, section 3, and the sections that it refers to.
func TestStorable(t *testing.T) {
	const etag = `Etag: "x"`
	none := http.Header{}
	auth := header("Authorization: Basic eDp5")
	for _, c := range []struct {
		name    string
		request http.Header
		s       *Stored
		why     string // part of the reason; "" means storable
	}{
		{"max-age", none, response(200, "Cache-Control: max-age=60"), ""},
		{"s-maxage", none, response(200, "Cache-Control: s-maxage=60"), ""},
		{"Expires", none, response(200, "Expires: "+at(time.Hour)), ""},
		{"heuristic", none, response(200, "Last-Modified: "+at(-time.Hour)), ""},
		{"only a validator", none, response(200, etag), ""},
		{"nothing to keep it for", none, response(200), "not fresh for any time"},

		{"interim", none, response(103, "Cache-Control: max-age=60"), "interim"},
		{"partial", none, response(206, "Cache-Control: max-age=60", etag), "partial"},
		{"not modified", none, response(304, "Cache-Control: max-age=60", etag), "not modified"},

		{"no-store", none, response(200, "Cache-Control: no-store, max-age=60"), "no-store"},
		{"no-store in upper case", none, response(200, "Cache-Control: max-age=60", "Cache-Control: NO-STORE"),
			"no-store"},
		{"no-store in the request", header("Cache-Control: no-store"), response(200, "Cache-Control: max-age=60"),
			"no-store in the request"},
		{"no-cache in the request", header("Cache-Control: no-cache"), response(200, "Cache-Control: max-age=60"), ""},
		{"private", none, response(200, "Cache-Control: private, max-age=60"), "private"},
		{"private and public", none, response(200, "Cache-Control: public, private, max-age=60"), "private"},
		{"private and s-maxage", none, response(200, "Cache-Control: private, s-maxage=60"), "private"},
		{"private for a field", none, response(200, `Cache-Control: private="Set-Cookie", max-age=60`), ""},
		{"private for what is no field", none, response(200, `Cache-Control: private="a b", max-age=60`), "private"},
		{"no-cache with a validator", none, response(200, "Cache-Control: no-cache", etag), ""},

		// RFC 9111, section 5.2.2.3.
		{"must-understand, known status", none, response(200, "Cache-Control: must-understand, no-store, max-age=60"),
			""},
		{"must-understand, unknown status", none, response(299, "Cache-Control: must-understand, max-age=60"),
			"must-understand"},
		{"must-understand, unknown status, no-store", none,
			response(299, "Cache-Control: must-understand, no-store, max-age=60"), "must-understand"},
		{"must-understand with an argument permits nothing", none,
			response(200, "Cache-Control: must-understand=0, no-store, max-age=60"), "no-store"},
		{"must-understand and private", none, response(200, "Cache-Control: must-understand, private, max-age=60"),
			"private"},

		// RFC 9111, section 3.5.
		{"Authorization", auth, response(200, "Cache-Control: max-age=60", etag), "Authorization"},
		{"Authorization, heuristic", auth, response(200, "Last-Modified: "+at(-time.Hour)), "Authorization"},
		{"Authorization, no-cache", auth, response(200, "Cache-Control: no-cache", etag), "Authorization"},
		{"Authorization, proxy-revalidate", auth, response(200, "Cache-Control: proxy-revalidate, max-age=60"),
			"Authorization"},
		{"Authorization, public", auth, response(200, "Cache-Control: public, max-age=60"), ""},
		{"Authorization, must-revalidate", auth, response(200, "Cache-Control: must-revalidate, max-age=60"), ""},
		{"Authorization, s-maxage", auth, response(200, "Cache-Control: s-maxage=60"), ""},
		{"Authorization, public with an argument", auth, response(200, "Cache-Control: public=1, max-age=60"),
			"Authorization"},
		{"Authorization, s-maxage invalid", auth, response(200, "Cache-Control: s-maxage=x, max-age=60", etag),
			"Authorization"},
		{"Authorization, public and private", auth, response(200, "Cache-Control: public, private"), "private"},
		{"Authorization, empty", header("Authorization:"), response(200, "Cache-Control: max-age=60"), "Authorization"},

		{"Vary: *", none, response(200, "Cache-Control: max-age=60", "Vary: Accept, *"), "Vary"},
		{"Vary", none, response(200, "Cache-Control: max-age=60", "Vary: Accept"), ""},

		{"302", none, response(302, etag), "no freshness"},
		{"302 with max-age", none, response(302, "Cache-Control: max-age=60"), ""},
		{"302 with Expires", none, response(302, "Expires: "+at(time.Hour)), ""},
		{"302 with public", none, response(302, "Cache-Control: public", etag), ""},
		{"500", none, response(500, etag), "no freshness"},
		{"500 with max-age", none, response(500, "Cache-Control: max-age=60"), ""},
		{"404", none, response(404, etag), ""},
		{"599 with max-age", none, response(599, "Cache-Control: max-age=60"), ""},

		{"Set-Cookie", none, response(200, "Set-Cookie: a=b", "Last-Modified: "+at(-time.Hour)), "Set-Cookie"},
		{"Set-Cookie, public", none, response(200, "Set-Cookie: a=b", "Cache-Control: public",
			"Last-Modified: "+at(-time.Hour)), "Set-Cookie"},
		{"Set-Cookie, explicit", none, response(200, "Set-Cookie: a=b", "Cache-Control: max-age=60"), "Set-Cookie"},
		{"Set-Cookie, for one client", none,
			response(200, "Set-Cookie: a=b", `Cache-Control: max-age=60, private="set-cookie"`), ""},
		{"Set-Cookie, to be validated", none,
			response(200, "Set-Cookie: a=b", `Cache-Control: max-age=60, no-cache="set-cookie"`), ""},
		{"416", none, response(416, "Cache-Control: max-age=60", "Content-Range: bytes */0"), "one request"},
		{"412", none, response(412, "Cache-Control: max-age=60"), "one request"},
		{"417", none, response(417, "Cache-Control: max-age=60"), "one request"},

		{"stale on arrival", none, response(200, "Cache-Control: max-age=60", "Age: 60"), ""},
		{"part, private", none, response(206, "Content-Range: bytes 0-4/10", "Cache-Control: private, max-age=60"),
			"private"},
		{"part, no-store", none, response(206, "Content-Range: bytes 0-4/10", "Cache-Control: no-store, max-age=60"),
			"no-store"},
		{"part", none, response(206, "Content-Range: bytes 0-4/10", "Cache-Control: max-age=60"), ""},
		{"Vary by too many fields", none, response(200, "Cache-Control: max-age=60", "Vary: "+fieldNameList(33)),
			"Vary names more than 32"},
		{"Vary by many fields, some of them twice", none,
			response(200, "Cache-Control: max-age=60", "Vary: "+fieldNameList(32), "Vary: "+fieldNameList(32)), ""},
		{"Vary by the address", none, response(200, "Cache-Control: max-age=60", "Vary: X-Forwarded-For"), "Vary"},
		{"status 600", none, response(600, "Cache-Control: max-age=60"), "a status that is none"},
		{"not quite stale on arrival", none, response(200, "Cache-Control: max-age=60", "Age: 59"), ""},
		{"stale on arrival, with a validator", none, response(200, "Cache-Control: max-age=0", etag), ""},
		{"stale on arrival, with a date as validator", none,
			response(200, "Cache-Control: max-age=0", "Last-Modified: "+at(0)), ""},
		{"stale on arrival, with an invalid date", none, response(200, "Cache-Control: max-age=0", "Last-Modified: x"),
			"not fresh for any time"},
		{"stale on arrival, of use while stale", none,
			response(200, "Cache-Control: max-age=0, stale-while-revalidate=9"), ""},
		{"stale on arrival, of use on an error", none, response(200, "Cache-Control: max-age=0, stale-if-error=9"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ok, why := Policy{}.Storable(c.request, c.s)
			if ok != (c.why == "") || !strings.Contains(why, c.why) || ok && why != "" {
				t.Errorf("storable: %v (%q), want %q", ok, why, c.why)
			}
		})
	}
	if ok, why := (Policy{DefaultTTL: time.Hour}).Storable(none, response(200, "Set-Cookie: a=b")); ok ||
		!strings.Contains(why, "Set-Cookie") {
		t.Errorf("Set-Cookie under default_ttl: storable %v (%q)", ok, why)
	}
	if ok, why := (Policy{DefaultTTL: time.Hour}).Storable(none, response(200)); !ok {
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
