package httpcache

import (
	"strings"
	"time"
)

var (
	shortDays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	longDays  = []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
	months    = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
)

// ParseDate parses an HTTP-date in any of its three formats (RFC 9110, section 5.6.7). Names are
// matched case-insensitively. A zone other than GMT makes the date invalid (RFC 9111, section 4.2).
// A two-digit year that appears to be more than 50 years after now is in the previous century.
func ParseDate(s string, now time.Time) (time.Time, bool) {
	s = strings.ToLower(trimOWS(s))
	day, rest, ok := strings.Cut(s, ", ")
	switch {
	case ok && indexOf(shortDays, day) > 0: // sun, 06 nov 1994 08:49:37 gmt
		if len(rest) != len("06 nov 1994 08:49:37 gmt") || rest[2] != ' ' || rest[6] != ' ' || rest[11] != ' ' ||
			rest[20:] != " gmt" {
			return time.Time{}, false
		}
		return makeDate(rest[7:11], rest[3:6], rest[:2], rest[12:20])
	case ok && indexOf(longDays, day) > 0: // sunday, 06-nov-94 08:49:37 gmt
		if len(rest) != len("06-nov-94 08:49:37 gmt") || rest[2] != '-' || rest[6] != '-' || rest[9] != ' ' ||
			rest[18:] != " gmt" {
			return time.Time{}, false
		}
		century := now.UTC().Year() / 100 * 100
		t, ok := makeDate("00"+rest[7:9], rest[3:6], rest[:2], rest[10:18])
		if !ok {
			return time.Time{}, false
		}
		t = t.AddDate(century, 0, 0)
		if t.After(now.AddDate(50, 0, 0)) {
			t = t.AddDate(-100, 0, 0)
		}
		return t, true
	case !ok: // sun nov  6 08:49:37 1994
		if len(s) != len("sun nov  6 08:49:37 1994") || s[3] != ' ' || s[7] != ' ' || s[10] != ' ' || s[19] != ' ' ||
			indexOf(shortDays, s[:3]) == 0 {
			return time.Time{}, false
		}
		d := s[8:10]
		if d[0] == ' ' {
			d = "0" + d[1:]
		}
		return makeDate(s[20:], s[4:7], d, s[11:19])
	}
	return time.Time{}, false
}

// indexOf returns the index of s in names, counted from 1, or 0 if s is not in it.
func indexOf(names []string, s string) int {
	for i, n := range names {
		if n == s {
			return i + 1
		}
	}
	return 0
}

func makeDate(year, month, day, clock string) (time.Time, bool) {
	if len(clock) != 8 || clock[2] != ':' || clock[5] != ':' {
		return time.Time{}, false
	}
	ok := true
	num := func(s string) int {
		n := 0
		for i := range len(s) {
			ok = ok && '0' <= s[i] && s[i] <= '9'
			n = n*10 + int(s[i]-'0')
		}
		return n
	}
	y, m, d := num(year), indexOf(months, month), num(day)
	h, mi, sec := num(clock[:2]), num(clock[3:5]), num(clock[6:])
	if !ok || m == 0 || d == 0 || h > 23 || mi > 59 || sec > 60 {
		return time.Time{}, false
	}
	if time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC).Day() != d { // such as 31 February
		return time.Time{}, false
	}
	return time.Date(y, time.Month(m), d, h, mi, sec, 0, time.UTC), true
}
