package httpcache

import (
	"testing"
	"time"
)

// RFC 9111, sections 4.2 and 5.2; RFC 5861, section 3.
func TestDecide(t *testing.T) {
	const s = time.Second
	site := Policy{StaleWhileRevalidate: 20 * s, StaleIfError: 20 * s}
	for _, c := range []struct {
		name     string
		policy   Policy
		request  string // Cache-Control
		response string // Cache-Control
		after    int    // seconds after the response
		want     Action
		forward  string
	}{
		{"fresh", Policy{}, "", "max-age=60", 59, Serve, ""},
		{"stale from its lifetime on", Policy{}, "", "max-age=60", 60, Validate, "stale"},
		{"s-maxage before max-age", Policy{}, "", "max-age=60, s-maxage=10", 30, Validate, "stale"},
		{"must-revalidate, fresh", Policy{}, "", "max-age=60, must-revalidate", 30, Serve, ""},
		{"no-cache", Policy{}, "", "max-age=60, no-cache", 0, Validate, "stale"},
		{"no-cache for a field", Policy{}, "", `max-age=60, no-cache="set-cookie"`, 0, Serve, ""},

		// 5.2.1.1
		{"request max-age", Policy{}, "max-age=10", "max-age=60", 10, Serve, ""},
		{"older than request max-age", Policy{}, "max-age=10", "max-age=60", 11, Validate, "request"},
		{"request max-age=0", Policy{}, "max-age=0", "max-age=60", 0, Validate, "request"},
		{"request max-age=0, immutable", Policy{}, "max-age=0", "max-age=60, immutable", 0, Validate, "request"},
		{"request max-age invalid", Policy{}, "max-age=x", "max-age=60", 30, Serve, ""},
		{"older than request max-age, max-stale", Policy{}, "max-age=10, max-stale", "max-age=60", 30, Validate,
			"request"},
		// 5.2.1.2
		{"max-stale", Policy{}, "max-stale", "max-age=60", 6000, Serve, ""},
		{"max-stale, enough", Policy{}, "max-stale=30", "max-age=60", 90, Serve, ""},
		{"max-stale, too little", Policy{}, "max-stale=30", "max-age=60", 91, Validate, "stale"},
		{"max-stale invalid", Policy{}, "max-stale=x", "max-age=60", 60, Validate, "stale"},
		{"max-stale, must-revalidate", Policy{}, "max-stale", "max-age=60, must-revalidate", 90, Validate, "stale"},
		{"max-stale, proxy-revalidate", Policy{}, "max-stale", "max-age=60, proxy-revalidate", 90, Validate, "stale"},
		{"max-stale, no-cache", Policy{}, "max-stale", "max-age=60, no-cache", 0, Validate, "stale"},
		{"max-stale, s-maxage", Policy{}, "max-stale", "s-maxage=60", 90, Validate, "stale"}, // 5.2.2.10
		// 5.2.1.3
		{"min-fresh, enough", Policy{}, "min-fresh=20", "max-age=60", 40, Serve, ""},
		{"min-fresh, too little", Policy{}, "min-fresh=20", "max-age=60", 41, Validate, "request"},
		// 5.2.1.4
		{"request no-cache", Policy{}, "no-cache", "max-age=60", 0, Validate, "request"},
		{"request no-cache, immutable", Policy{}, "no-cache", "max-age=60, immutable", 0, Validate, "request"},

		// RFC 5861, section 3.
		{"stale-while-revalidate", Policy{}, "", "max-age=60, stale-while-revalidate=30", 90, ServeStale, "stale"},
		{"stale-while-revalidate, over", Policy{}, "", "max-age=60, stale-while-revalidate=30", 91, Validate, "stale"},
		{"stale-while-revalidate, fresh", Policy{}, "", "max-age=60, stale-while-revalidate=30", 59, Serve, ""},
		{"stale-while-revalidate, must-revalidate", Policy{}, "",
			"max-age=60, stale-while-revalidate=30, must-revalidate", 61, Validate, "stale"},
		{"stale-while-revalidate, no-cache", Policy{}, "", "max-age=60, stale-while-revalidate=30, no-cache", 61,
			Validate, "stale"},
		{"stale-while-revalidate, request no-cache", Policy{}, "no-cache", "max-age=60, stale-while-revalidate=30", 61,
			Validate, "request"},
		{"stale-while-revalidate with s-maxage", Policy{}, "", "s-maxage=60, stale-while-revalidate=30", 90, ServeStale,
			"stale"},
		{"stale-while-revalidate invalid", site, "", "max-age=60, stale-while-revalidate=x", 61, Validate, "stale"},
		{"the site's", site, "", "max-age=60", 80, ServeStale, "stale"},
		{"the site's, over", site, "", "max-age=60", 81, Validate, "stale"},
		{"the site's, against the response's", site, "", "max-age=60, stale-while-revalidate=0", 61, Validate, "stale"},
		{"the site's, less than the response's", site, "", "max-age=60, stale-while-revalidate=50", 110, ServeStale,
			"stale"},
		{"the site's, must-revalidate", site, "", "max-age=60, must-revalidate", 61, Validate, "stale"},
		{"the site's, proxy-revalidate", site, "", "max-age=60, proxy-revalidate", 61, Validate, "stale"},
		{"the site's, s-maxage", site, "", "s-maxage=60", 61, Validate, "stale"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := c.policy.Decide(ParseCacheControl([]string{c.request}), response(200, "Cache-Control: "+c.response),
				false, now.Add(time.Duration(c.after)*s))
			if d.Action != c.want || d.Forward != c.forward {
				t.Errorf("action %v, forward %q, want %v, %q", d.Action, d.Forward, c.want, c.forward)
			}
			if want := time.Duration(c.after) * s; d.Age != want {
				t.Errorf("age %v, want %v", d.Age, want)
			}
		})
	}
}

func TestDecideTTL(t *testing.T) {
	stored := response(200, "Cache-Control: max-age=60", "Age: 10")
	for after, want := range map[time.Duration]time.Duration{0: 50 * time.Second, 50 * time.Second: 0,
		80 * time.Second: -30 * time.Second} {
		if d := (Policy{}).Decide(Directives{}, stored, false, now.Add(after)); d.TTL != want {
			t.Errorf("after %v the TTL is %v, want %v", after, d.TTL, want)
		}
	}
}

// A soft purge makes a response stale.
func TestDecidePurged(t *testing.T) {
	for _, c := range []struct {
		request, response string
		want              Action
		staleIfError      bool
	}{
		{"", "max-age=60, stale-if-error=30", Validate, true},
		{"max-stale", "max-age=60, stale-if-error=30", Validate, true},
		{"", "max-age=60, stale-while-revalidate=30, stale-if-error=30", ServeStale, true},
		{"", "max-age=60, stale-while-revalidate=30, must-revalidate", Validate, false},
		{"", "max-age=60, stale-if-error=30, must-revalidate", Validate, false},
	} {
		d := Policy{}.Decide(ParseCacheControl([]string{c.request}), response(200, "Cache-Control: "+c.response), true,
			now)
		if d.Action != c.want || d.StaleIfError != c.staleIfError || d.TTL > 0 {
			t.Errorf("%q for %q: %+v", c.response, c.request, d)
		}
	}
}

// RFC 5861, section 4; RFC 9111, section 4.2.4.
func TestDecideStaleIfError(t *testing.T) {
	site := Policy{StaleIfError: 20 * time.Second}
	for _, c := range []struct {
		name     string
		policy   Policy
		request  string
		response string
		after    int
		want     bool
	}{
		{"within", Policy{}, "", "max-age=60, stale-if-error=30", 90, true},
		{"over", Policy{}, "", "max-age=60, stale-if-error=30", 91, false},
		{"nobody allows it", Policy{}, "", "max-age=60", 61, false},
		{"the site's", site, "", "max-age=60", 80, true},
		{"the site's, over", site, "", "max-age=60", 81, false},
		{"the response's goes before the site's", site, "", "max-age=60, stale-if-error=5", 70, false},
		{"must-revalidate", site, "", "max-age=60, must-revalidate", 61, false},
		{"must-revalidate against stale-if-error", Policy{}, "", "max-age=60, must-revalidate, stale-if-error=30", 61,
			false},
		{"proxy-revalidate", site, "", "max-age=60, proxy-revalidate", 61, false},
		{"s-maxage", site, "", "s-maxage=60", 61, false},
		{"s-maxage and stale-if-error", Policy{}, "", "s-maxage=60, stale-if-error=30", 61, true},
		// 5.2.2.4: no-cache always needs a successful validation, even for a fresh response.
		{"no-cache, stale", site, "", "max-age=60, no-cache", 61, false},
		{"no-cache, fresh", site, "", "max-age=60, no-cache", 0, false},
		{"no-cache and stale-if-error, fresh", Policy{}, "", "max-age=60, no-cache, stale-if-error=30", 0, false},
		// The stored response is still fresh.
		{"request no-cache, fresh", Policy{}, "no-cache", "max-age=60", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := c.policy.Decide(ParseCacheControl([]string{c.request}), response(200, "Cache-Control: "+c.response),
				false, now.Add(time.Duration(c.after)*time.Second))
			if d.StaleIfError != c.want {
				t.Errorf("%v, want %v", d.StaleIfError, c.want)
			}
		})
	}
}
