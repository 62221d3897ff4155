package httpcache

import (
	"net/http"
	"testing"
	"time"
)

func TestNotModified(t *testing.T) {
	tagged := response(200, `Etag: "x"`, "Last-Modified: "+at(-time.Hour))
	weak := response(200, `Etag: W/"x"`)
	dated := response(200, "Date: "+at(-time.Minute))
	for _, c := range []struct {
		name    string
		s       *Stored
		request []string
		want    bool
	}{
		{"no condition", tagged, nil, false},
		{"the tag", tagged, []string{`If-None-Match: "x"`}, true},
		{"another tag", tagged, []string{`If-None-Match: "y"`}, false},
		{"the tag in another case", tagged, []string{`If-None-Match: "X"`}, false},
		{"among others", tagged, []string{`If-None-Match: "y", "x"`}, true},
		{"on another line", tagged, []string{`If-None-Match: "y"`, `If-None-Match: "x"`}, true},
		{"inside another", tagged, []string{`If-None-Match: "y, x, z"`}, false},
		{"any", tagged, []string{"If-None-Match: *"}, true},
		{"any, without a tag", dated, []string{"If-None-Match: *"}, true},
		{"weak in the request", tagged, []string{`If-None-Match: W/"x"`}, true},
		{"weak in the response", weak, []string{`If-None-Match: "x"`}, true},
		{"weak in both", weak, []string{`If-None-Match: W/"x"`}, true},
		{"lower-case w", weak, []string{`If-None-Match: w/"x"`}, false},
		{"a tag, without one", dated, []string{`If-None-Match: "x"`}, false},
		{"an empty field", tagged, []string{"If-None-Match:"}, false},
		{"commas in the tag", response(200, `Etag: "a,b"`), []string{`If-None-Match: "y", "a,b"`}, true},
		{"a backslash in the tag", response(200, `Etag: "a\"`), []string{`If-None-Match: "a\"`}, true},
		{"a backslash in another tag", tagged, []string{`If-None-Match: "a\", "x"`}, true},

		// RFC 9110, section 13.1.3: If-None-Match takes precedence over If-Modified-Since.
		{"another tag, not modified since", tagged, []string{`If-None-Match: "y"`, "If-Modified-Since: " + at(0)},
			false},
		{"the tag, modified since", tagged, []string{`If-None-Match: "x"`, "If-Modified-Since: " + at(-2*time.Hour)},
			true},

		{"not modified since", tagged, []string{"If-Modified-Since: " + at(-time.Hour)}, true},
		{"not modified since later", tagged, []string{"If-Modified-Since: " + at(0)}, true},
		{"modified since", tagged, []string{"If-Modified-Since: " + at(-time.Hour-time.Second)}, false},
		{"since an invalid date", tagged, []string{"If-Modified-Since: " + now.Format(time.RFC3339)}, false},
		{"since two dates", tagged, []string{"If-Modified-Since: " + at(0), "If-Modified-Since: " + at(0)}, false},
		// RFC 9111, section 4.3.2: without Last-Modified, Date or the time of arrival is used.
		{"not modified since Date", dated, []string{"If-Modified-Since: " + at(-time.Minute)}, true},
		{"modified since before Date", dated, []string{"If-Modified-Since: " + at(-time.Minute-time.Second)}, false},
		{"not modified since it came", response(200), []string{"If-Modified-Since: " + at(0)}, true},
		{"modified since before it came", response(200), []string{"If-Modified-Since: " + at(-time.Second)}, false},

		// RFC 9110, section 13.2.1: only if the response would be successful.
		{"the tag of a 404", response(404, `Etag: "x"`), []string{`If-None-Match: "x"`}, false},
		{"a 301, not modified since", response(301, "Last-Modified: "+at(-time.Hour)),
			[]string{"If-Modified-Since: " + at(0)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.s.NotModified(header(c.request...)); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// RFC 9110, section 13.1.5.
func TestIfRange(t *testing.T) {
	lm := at(-time.Hour)
	strong := response(200, `Etag: "x"`, "Last-Modified: "+lm, "Date: "+at(0))
	for _, c := range []struct {
		name    string
		s       *Stored
		request []string
		want    bool
	}{
		{"none", strong, nil, true},
		{"the tag", strong, []string{`If-Range: "x"`}, true},
		{"another tag", strong, []string{`If-Range: "y"`}, false},
		{"weak in the request", strong, []string{`If-Range: W/"x"`}, false},
		{"weak in both", response(200, `Etag: W/"x"`), []string{`If-Range: W/"x"`}, false},
		{"weak in the response", response(200, `Etag: W/"x"`), []string{`If-Range: "x"`}, false},
		{"a list", strong, []string{`If-Range: "x", "y"`}, false},
		{"two lines", strong, []string{`If-Range: "x"`, `If-Range: "x"`}, false},
		{"any", strong, []string{"If-Range: *"}, false},
		{"empty", strong, []string{"If-Range:"}, false},
		{"a tag, without one", response(200), []string{`If-Range: "x"`}, false},
		{"the date", strong, []string{"If-Range: " + lm}, true},
		{"an earlier date", strong, []string{"If-Range: " + at(-time.Hour-time.Second)}, false},
		{"a later date", strong, []string{"If-Range: " + at(0)}, false},
		{"an invalid date", strong, []string{"If-Range: yesterday"}, false},
		{"a date, without Last-Modified", response(200, "Date: "+at(0)), []string{"If-Range: " + at(0)}, false},
		// RFC 9110, section 8.8.2.2: a Last-Modified in the same second as Date is weak.
		{"the date, a second before Date", response(200, "Last-Modified: "+at(-time.Second), "Date: "+at(0)),
			[]string{"If-Range: " + at(-time.Second)}, true},
		{"the date, at Date", response(200, "Last-Modified: "+at(0), "Date: "+at(0)), []string{"If-Range: " + at(0)},
			false},
		{"the date, after Date", response(200, "Last-Modified: "+at(time.Hour), "Date: "+at(0)),
			[]string{"If-Range: " + at(time.Hour)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.s.IfRange(header(c.request...)); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// RFC 9111, section 4.3.1.
func TestSetValidators(t *testing.T) {
	lm := at(-time.Hour)
	clients := []string{`If-None-Match: "client"`, "If-Modified-Since: " + at(0), `If-Match: "m"`,
		"If-Unmodified-Since: " + at(0), `If-Range: "r"`, "Range: bytes=0-0"}
	for _, c := range []struct {
		name   string
		stored []string
		want   []string
	}{
		{"both", []string{`Etag: W/"x"`, "Last-Modified: " + lm},
			[]string{`If-None-Match: W/"x"`, "If-Modified-Since: " + lm}},
		{"tag", []string{`Etag: "x"`}, []string{`If-None-Match: "x"`}},
		{"date", []string{"Last-Modified: " + lm}, []string{"If-Modified-Since: " + lm}},
		{"invalid date", []string{"Last-Modified: yesterday"}, nil},
		{"nothing", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			request := header(append(clients, "Accept: text/html")...)
			got := response(200, c.stored...).SetValidators(request)
			if want := header(append(c.want, "Accept: text/html")...); got != (len(c.want) > 0) ||
				!equalHeader(request, want) {
				t.Errorf("%v, %v, want %v", got, request, want)
			}
		})
	}
}

// RFC 9111, section 4.3.4.
func TestConfirms(t *testing.T) {
	lm := at(-time.Hour)
	for _, c := range []struct {
		name        string
		stored      []string
		notModified []string
		want        bool
	}{
		{"no validator", []string{`Etag: "x"`}, nil, true},
		{"the same tag", []string{`Etag: "x"`}, []string{`Etag: "x"`}, true},
		{"another tag", []string{`Etag: "x"`}, []string{`Etag: "y"`}, false},
		{"another tag, the same date", []string{`Etag: "x"`, "Last-Modified: " + lm},
			[]string{`Etag: "y"`, "Last-Modified: " + lm}, false},
		{"the same weak tag", []string{`Etag: W/"x"`}, []string{`Etag: W/"x"`}, true},
		{"another weak tag", []string{`Etag: W/"x"`}, []string{`Etag: W/"y"`}, false},
		{"a weak tag for a strong one", []string{`Etag: "x"`}, []string{`Etag: W/"x"`}, true},
		{"the same date", []string{"Last-Modified: " + lm}, []string{"Last-Modified: " + lm}, true},
		{"an earlier date: another version was put back", []string{"Last-Modified: " + lm},
			[]string{"Last-Modified: " + at(-2*time.Hour)}, false},
		{"a strong tag for a weak one, as of a compressed body", []string{`Etag: W/"x"`}, []string{`Etag: "x"`}, true},
		{"an invalid date", []string{"Last-Modified: " + lm}, []string{"Last-Modified: yesterday"}, false},
		{"the same date, and a tag that the stored one hasn't", []string{"Last-Modified: " + lm},
			[]string{`Etag: "x"`, "Last-Modified: " + lm}, true},
		{"a tag that the stored one hasn't", []string{"Last-Modified: " + lm}, []string{`Etag: "x"`}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := response(200, c.stored...).Confirms(header(c.notModified...)); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// RFC 9111, section 3.2.
func TestUpdate(t *testing.T) {
	s := response(200, `Etag: "x"`, "Age: 100", "Date: "+at(-time.Hour), "Cache-Control: max-age=60",
		"Content-Type: text/css", "Content-Length: 5",
		"Content-Encoding: gzip", "X-Multi: 1", "X-Multi: 2", "X-Kept: k")
	before := s.Header.Clone()
	asked, answered := now.Add(time.Hour), now.Add(time.Hour+time.Second)
	u := s.Update(header("Date: "+at(time.Hour), "Cache-Control: max-age=120", "Content-Type: text/html",
		"Content-Length: 0", "Content-Encoding: br",
		"Content-Range: bytes 0-0/5", "X-Multi: 3", "X-New: n"), asked, answered)
	want := header(`Etag: "x"`, "Date: "+at(time.Hour), "Cache-Control: max-age=120", "Content-Type: text/html",
		"Content-Length: 5",
		"Content-Encoding: gzip", "Vary: Accept-Encoding", "X-Multi: 3", "X-Kept: k", "X-New: n")
	if !equalHeader(u.Header, want) {
		t.Errorf("fields\n got %v\nwant %v", u.Header, want)
	}
	if u.Status != 200 || !u.RequestTime.Equal(asked) || !u.ResponseTime.Equal(answered) {
		t.Errorf("status %d, asked %v, answered %v", u.Status, u.RequestTime, u.ResponseTime)
	}
	if age := u.Age(answered); age != time.Second {
		t.Errorf("age %v, want the delay of the validation", age)
	}
	if !equalHeader(s.Header, before) {
		t.Error("the stored response itself was changed")
	}
	if got := s.Update(header("Age: 7"), now, now).Age(now); got != time.Hour {
		t.Errorf("age %v, want that by the Date, which the 304 did not replace", got)
	}
}

func FuzzIfNoneMatch(f *testing.F) {
	for _, s := range []string{`"x"`, `W/"x"`, "*", `"x", "y"`, `"a\", "x"`, `"`, `W/`, "", `"y,x"`, `"x`} {
		f.Add(s, "x")
	}
	f.Add(`"a\"`, `a\`)
	f.Fuzz(func(t *testing.T, field, opaque string) {
		for i := range len(opaque) {
			if c := opaque[i]; c < 0x21 || c == '"' || c == 0x7f {
				t.Skip("not an entity tag")
			}
		}
		tag := `"` + opaque + `"`
		strong, weak := response(200, "Etag: "+tag), response(200, "Etag: W/"+tag)
		if !strong.NotModified(http.Header{"If-None-Match": {tag}}) ||
			!weak.NotModified(http.Header{"If-None-Match": {field, tag}}) {
			t.Errorf("%s does not match itself, or not after a line %q", tag, field)
		}
		if a, b := strong.NotModified(http.Header{"If-None-Match": {field}}),
			weak.NotModified(http.Header{"If-None-Match": {field}}); a != b {
			t.Errorf("%q: the weak comparison says %v of the strong tag %s, %v of the weak one", field, a, tag, b)
		}
		if weak.IfRange(http.Header{"If-Range": {field}}) || weak.IfRange(http.Header{"If-Range": {"W/" + tag}}) {
			t.Errorf("If-Range: %q matches a weak tag", field)
		}
		if !strong.IfRange(http.Header{"If-Range": {tag}}) {
			t.Errorf("If-Range does not match %s", tag)
		}
	})
}
