package httpcache

import (
	"net/http"
	"testing"
	"time"
)

// now is the current time in the tests of this package.
var now = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func TestParseDate(t *testing.T) {
	rfc := time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC)
	for _, c := range []struct {
		s    string
		want time.Time
	}{
		// RFC 9110, section 5.6.7: the three formats.
		{"Sun, 06 Nov 1994 08:49:37 GMT", rfc},
		{"Sunday, 06-Nov-94 08:49:37 GMT", rfc},
		{"Sun Nov  6 08:49:37 1994", rfc},
		{"Sun Nov 06 08:49:37 1994", rfc},
		{" \tSun, 06 Nov 1994 08:49:37 GMT ", rfc},
		// RFC 9111, section 4.2: case-insensitive.
		{"sun, 06 nov 1994 08:49:37 gmt", rfc},
		{"SUNDAY, 06-NOV-94 08:49:37 GMT", rfc},
		{"sUN nOV  6 08:49:37 1994", rfc},

		{"Thu, 29 Feb 2024 00:00:00 GMT", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)},
		{"Thu, 01 Jan 1970 00:00:00 GMT", time.Unix(0, 0).UTC()},
		{"Fri, 31 Dec 9999 23:59:59 GMT", time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},
		// A leap second.
		{"Sat, 31 Dec 2016 23:59:60 GMT", time.Date(2017, 1, 1, 0, 0, 0, 0, time.UTC)},

		// A two-digit year more than 50 years ahead is in the past.
		{"Wednesday, 01-Jul-26 12:00:00 GMT", now},
		{"Wednesday, 01-Jul-76 12:00:00 GMT", time.Date(2076, 7, 1, 12, 0, 0, 0, time.UTC)},
		{"Wednesday, 01-Jul-76 12:00:01 GMT", time.Date(1976, 7, 1, 12, 0, 1, 0, time.UTC)},
		{"Wednesday, 01-Jan-77 00:00:00 GMT", time.Date(1977, 1, 1, 0, 0, 0, 0, time.UTC)},
		{"Saturday, 01-Jan-00 00:00:00 GMT", time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)},
		{"Friday, 29-Feb-80 00:00:00 GMT", time.Date(1980, 2, 29, 0, 0, 0, 0, time.UTC)},
	} {
		got, ok := ParseDate(c.s, now)
		if !ok || !got.Equal(c.want) {
			t.Errorf("ParseDate(%q) = %v, %v, want %v", c.s, got, ok, c.want)
		}
	}
}

func TestParseDateInvalid(t *testing.T) {
	for _, s := range []string{
		"", "0", "-1", "never", "1994-11-06T08:49:37Z", "784111777", ",", ", ",
		// RFC 9111, section 4.2: no zone but GMT.
		"Sun, 06 Nov 1994 08:49:37 UTC",
		"Sun, 06 Nov 1994 08:49:37 EST",
		"Sun, 06 Nov 1994 08:49:37 +0000",
		"Sun, 06 Nov 1994 08:49:37",
		"Sunday, 06-Nov-94 08:49:37 PST",
		"Sun Nov  6 08:49:37 1994 GMT",
		// Invalid formats.
		"Sun, 6 Nov 1994 08:49:37 GMT",
		"Sun,  6 Nov 1994 08:49:37 GMT",
		"Sun, 06-Nov-1994 08:49:37 GMT",
		"Sun, 06 Nov 94 08:49:37 GMT",
		"Sunday, 06-Nov-1994 08:49:37 GMT",
		"Sunday, 06 Nov 1994 08:49:37 GMT",
		"Sun, 06 November 1994 08:49:37 GMT",
		"Sun 06 Nov 1994 08:49:37 GMT",
		"06 Nov 1994 08:49:37 GMT",
		"Xyz, 06 Nov 1994 08:49:37 GMT",
		"Sun, 06 Xyz 1994 08:49:37 GMT",
		"Sun, 06 Nov 1994 8:49:37 GMT",
		"Sun, 06 Nov 1994 08.49.37 GMT",
		"Sun, 06 Nov 1994 08:49 GMT",
		"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
		"Sun, 06 Nov 1994 08:49:37 GMT x",
		`"Sun, 06 Nov 1994 08:49:37 GMT"`,
		"Sun, 0x Nov 1994 08:49:37 GMT",
		"Sun, -6 Nov 1994 08:49:37 GMT",
		"Sun, 06 Nov +994 08:49:37 GMT",
		"Sun Nov  6 08:49:37 94",
		// Days and times that don't exist.
		"Sun, 00 Nov 1994 08:49:37 GMT",
		"Sun, 31 Nov 1994 08:49:37 GMT",
		"Sun, 30 Feb 1994 08:49:37 GMT",
		"Sun, 29 Feb 2023 08:49:37 GMT",
		"Sun, 30 Feb 1994 23:59:60 GMT",
		"Sun, 99 Nov 1994 08:49:37 GMT",
		"Sun, 06 Nov 1994 24:00:00 GMT",
		"Sun, 06 Nov 1994 08:60:37 GMT",
		"Sun, 06 Nov 1994 08:49:61 GMT",
		"Sunday, 31-Nov-94 08:49:37 GMT",
	} {
		if got, ok := ParseDate(s, now); ok {
			t.Errorf("ParseDate(%q) = %v, want it to be invalid", s, got)
		}
	}
}

func FuzzDate(f *testing.F) {
	for _, s := range []string{
		"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
		"Sun, 31 Dec 2016 23:59:60 GMT",
		"Friday, 29-Feb-80 00:00:00 GMT", "0", "Sun, 30 Feb 1994 23:59:60 GMT", ", ", "Sun Nov    08:49:37 1994",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := ParseDate(s, now)
		want, err := http.ParseTime(s)
		if ok {
			if got.Location() != time.UTC || got.Nanosecond() != 0 || got.Year() < 0 || got.Year() > 10000 {
				t.Errorf("ParseDate(%q) = %v", s, got)
			}
			if again, ok := ParseDate(got.Format(http.TimeFormat), now); got.Year() < 10000 &&
				(!ok || !again.Equal(got)) {
				t.Errorf("ParseDate(%q) = %v, which as a date is %v, %v", s, got, again, ok)
			}
		}
		// net/http accepts more formats. It writes IMF-fixdate, which ParseDate must accept.
		if err == nil && want.UTC().Format(http.TimeFormat) == s && (!ok || !got.Equal(want)) {
			t.Errorf("ParseDate(%q) = %v, %v, want %v", s, got, ok, want)
		}
	})
}
