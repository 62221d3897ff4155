package httpcache

import (
	"net/http"
	"net/textproto"
	"testing"
	"time"
)

// header returns a header with the given "Name: value" lines. A name may occur several times.
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, l := range lines {
		for i := range len(l) {
			if l[i] == ':' {
				h.Add(l[:i], textproto.TrimString(l[i+1:]))
				break
			}
		}
	}
	return h
}

// response returns a response that was requested and received at now.
func response(status int, lines ...string) *Stored {
	return &Stored{Status: status, Header: header(lines...), RequestTime: now, ResponseTime: now}
}

// at formats the date now + d.
func at(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }

func TestLifetime(t *testing.T) {
	const hour = time.Hour
	for _, c := range []struct {
		name   string
		policy Policy
		s      *Stored
		want   Lifetime
	}{
		// RFC 9111, section 4.2.1: s-maxage, then max-age, then Expires.
		{"s-maxage first", Policy{}, response(200, "Cache-Control: max-age=1, s-maxage=2", "Expires: "+at(hour)),
			Lifetime{2 * time.Second, "s-maxage", true}},
		{"max-age before Expires", Policy{}, response(200, "Cache-Control: max-age=1", "Expires: "+at(hour)),
			Lifetime{time.Second, "max-age", true}},
		{"Expires less Date", Policy{}, response(200, "Date: "+at(-hour), "Expires: "+at(hour)),
			Lifetime{2 * hour, "Expires", true}},
		{"Expires less the arrival", Policy{}, response(200, "Expires: "+at(hour)), Lifetime{hour, "Expires", true}},
		{"Expires less the arrival, for an invalid Date", Policy{}, response(200, "Date: x", "Expires: "+at(hour)),
			Lifetime{hour, "Expires", true}},
		{"Expires at Date", Policy{}, response(200, "Date: "+at(0), "Expires: "+at(0)), Lifetime{0, "Expires", true}},
		{"Expires in the past", Policy{}, response(200, "Date: "+at(0), "Expires: "+at(-hour)),
			Lifetime{0, "Expires", true}},
		{"Expires: 0", Policy{}, response(200, "Expires: 0"), Lifetime{0, "Expires", true}},
		{"Expires twice", Policy{}, response(200, "Expires: "+at(hour), "Expires: "+at(2*hour)),
			Lifetime{hour, "Expires", true}},
		{"max-age repeated", Policy{}, response(200, "Cache-Control: max-age=5, max-age=9"),
			Lifetime{5 * time.Second, "max-age", true}},
		// Invalid freshness information makes the response stale; later sources are not used.
		{"max-age invalid", Policy{DefaultTTL: hour}, response(200, "Cache-Control: max-age=x", "Expires: "+at(hour)),
			Lifetime{0, "max-age", true}},
		{"s-maxage invalid", Policy{}, response(200, "Cache-Control: s-maxage=-1, max-age=60"),
			Lifetime{0, "s-maxage", true}},
		{"Expires invalid", Policy{DefaultTTL: hour}, response(200, "Expires: soon"), Lifetime{0, "Expires", true}},
		// Explicit freshness applies to every status.
		{"max-age of a 302", Policy{}, response(302, "Cache-Control: max-age=1"),
			Lifetime{time.Second, "max-age", true}},
		{"max-age of an unknown status", Policy{}, response(599, "Cache-Control: max-age=1"),
			Lifetime{time.Second, "max-age", true}},

		// RFC 9111, section 4.2.2: the heuristic applies only without explicit freshness.
		{"heuristic", Policy{}, response(200, "Date: "+at(0), "Last-Modified: "+at(-10*hour)),
			Lifetime{hour, "heuristic", false}},
		{"heuristic, bounded", Policy{}, response(200, "Date: "+at(0), "Last-Modified: "+at(-10000*hour)),
			Lifetime{24 * hour, "heuristic", false}},
		{"heuristic, from the future", Policy{}, response(200, "Date: "+at(0), "Last-Modified: "+at(hour)), Lifetime{}},
		{"heuristic, Last-Modified invalid", Policy{}, response(200, "Date: "+at(0), "Last-Modified: yesterday"),
			Lifetime{}},
		{"nothing", Policy{}, response(200), Lifetime{}},
		{"default", Policy{DefaultTTL: hour}, response(200, "Last-Modified: "+at(-10*hour)),
			Lifetime{hour, "default_ttl", false}},
		{"default, of a status without", Policy{DefaultTTL: hour}, response(302, "Last-Modified: "+at(-10*hour)),
			Lifetime{}},
		{"heuristic, of a status without", Policy{}, response(403, "Last-Modified: "+at(-10*hour)), Lifetime{}},
		{"heuristic, of a status without, public", Policy{},
			response(302, "Cache-Control: public", "Last-Modified: "+at(-10*hour)), Lifetime{hour, "heuristic", false}},
		{"default, other directives only", Policy{DefaultTTL: hour}, response(404, "Cache-Control: no-transform"),
			Lifetime{hour, "default_ttl", false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.s.Lifetime(c.policy); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// RFC 9110, section 15.1.
func TestHeuristicStatus(t *testing.T) {
	cacheable := map[int]bool{200: true, 203: true, 204: true, 300: true, 301: true, 308: true, 404: true, 405: true,
		410: true, 414: true, 501: true}
	for status := 200; status < 600; status++ {
		if status == 206 {
			continue // Storable rejects these
		}
		got := response(status).Lifetime(Policy{DefaultTTL: time.Hour}).D > 0
		if got != cacheable[status] {
			t.Errorf("status %d is heuristically cacheable: %v", status, got)
		}
	}
}

// RFC 9111, section 4.2.3.
func TestAge(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name     string
		delay    time.Duration // from request to response
		resident time.Duration
		lines    []string
		want     time.Duration
	}{
		{"nothing", 0, 0, nil, 0},
		{"resident", 0, 7 * s, nil, 7 * s},
		{"Age", 0, 0, []string{"Age: 10"}, 10 * s},
		{"Age and resident", 0, 5 * s, []string{"Age: 10"}, 15 * s},
		{"Age and delay", 3 * s, 5 * s, []string{"Age: 10"}, 18 * s},
		{"delay alone", 3 * s, 5 * s, nil, 8 * s},
		{"apparent age", 0, 5 * s, []string{"Date: " + at(-20*s)}, 25 * s},
		{"apparent age is more than Age", 3 * s, 0, []string{"Date: " + at(-20*s), "Age: 10"}, 20 * s},
		{"Age and delay are more than apparent", 3 * s, 0, []string{"Date: " + at(-12*s), "Age: 10"}, 13 * s},
		{"Date in the future", 0, 5 * s, []string{"Date: " + at(time.Hour)}, 5 * s},
		{"Date invalid", 0, 5 * s, []string{"Date: x"}, 5 * s},
		// RFC 9111, section 5.1.
		{"Age as a list", 0, 0, []string{"Age: 10, 99"}, 10 * s},
		{"Age twice", 0, 0, []string{"Age: 10", "Age: 99"}, 10 * s},
		{"Age negative", 0, 0, []string{"Age: -10"}, 0},
		{"Age decimal", 0, 0, []string{"Age: 1.5"}, 0},
		{"Age not a number", 0, 0, []string{"Age: old, 99"}, 0},
		{"Age huge", 0, 0, []string{"Age: 99999999999999999999"}, (1 << 31) * s},
		{"the clock went back", 0, -time.Hour, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &Stored{Status: 200, Header: header(c.lines...), RequestTime: now.Add(-c.delay), ResponseTime: now}
			if got := r.Age(now.Add(c.resident)); got != c.want {
				t.Errorf("age %v, want %v", got, c.want)
			}
		})
	}
}

func TestDateAndLastModified(t *testing.T) {
	s := response(200, "Date: "+at(-time.Minute), "Last-Modified: "+at(-time.Hour))
	if got := s.Date(); !got.Equal(now.Add(-time.Minute)) {
		t.Errorf("Date is %v", got)
	}
	if got := s.LastModified(); !got.Equal(now.Add(-time.Hour)) {
		t.Errorf("Last-Modified is %v", got)
	}
	s = response(200, "Date: today", "Last-Modified: yesterday")
	if got := s.Date(); !got.Equal(now) {
		t.Errorf("without a valid Date it is %v, want the time of arrival", got)
	}
	if got := s.LastModified(); !got.IsZero() {
		t.Errorf("without a valid Last-Modified it is %v", got)
	}
}
