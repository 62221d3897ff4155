package rules

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The results of limits, in metrics and in Cache-Status.
const (
	LimitRequests = "limit-requests"
	LimitMisses   = "limit-misses"
)

// Limits of limits.
const (
	maxCount     = 1_000_000      // of a rate, or a burst
	maxTolerance = 24 * time.Hour // in which a burst is regained
)

// Rate is a number of requests in a time. The zero Rate means no limit.
type Rate struct {
	N  int
	In time.Duration
}

var rateUnits = []struct {
	text, name string
	in         time.Duration
}{{"s", "second", time.Second}, {"m", "minute", time.Minute}, {"h", "hour", time.Hour}}

// ParseRate parses a rate such as 100/s, 600/m or 5000/h.
func ParseRate(text string) (Rate, error) {
	count, unit, _ := strings.Cut(text, "/")
	n, err := strconv.Atoi(count)
	for _, u := range rateUnits {
		if err == nil && u.text == unit && n >= 1 && n <= maxCount {
			return Rate{n, u.in}, nil
		}
	}
	return Rate{}, fmt.Errorf("%q is not a rate: want 1/h to %d/s, such as 100/s, 600/m or 5000/h", text, maxCount)
}

// String returns the rate in words.
func (r Rate) String() string {
	for _, u := range rateUnits {
		if u.in == r.In {
			return fmt.Sprintf("%d per %s", r.N, u.name)
		}
	}
	return fmt.Sprintf("%d per %v", r.N, r.In)
}

// Limit limits the rate of requests, and that of misses, by the network of the client, or by the
// value of a field or a cookie. Requests without the field or cookie count for their network.
type Limit struct {
	// Name tells the limit from all others of an edge. A limit that keeps its name keeps its
	// counts.
	Name           string
	Rate, Misses   Rate
	Burst          int // requests at once; 0 means Rate.N
	MissBurst      int // 0 means Misses.N
	Header, Cookie string
	IPv4, IPv6     int // bits of a network; 0 means 32 and 64

	all, misses pace
}

// Check returns what is wrong with a limit, and makes it ready to use.
func (l *Limit) Check() error {
	if l.Rate.N == 0 && l.Misses.N == 0 {
		return errors.New("want a rate, or a rate of misses")
	}
	for _, p := range []struct {
		pace  *pace
		rate  Rate
		burst *int
	}{{&l.all, l.Rate, &l.Burst}, {&l.misses, l.Misses, &l.MissBurst}} {
		if p.rate.N == 0 {
			continue
		}
		*p.burst = cmp.Or(*p.burst, p.rate.N)
		if *p.burst < 1 || *p.burst > maxCount {
			return fmt.Errorf("a burst of %d: want 1 to %d", *p.burst, maxCount)
		}
		if *p.pace = newPace(p.rate.N, p.rate.In, *p.burst); p.pace.tolerance > maxTolerance {
			return fmt.Errorf("a burst of %d is regained in %v: want at most %v", *p.burst, p.pace.tolerance,
				maxTolerance)
		}
	}
	l.IPv4, l.IPv6 = cmp.Or(l.IPv4, 32), cmp.Or(l.IPv6, 64)
	if l.IPv4 < 8 || l.IPv4 > 32 || l.IPv6 < 16 || l.IPv6 > 128 {
		return errors.New("want networks of 8 to 32 bits for IPv4, and of 16 to 128 for IPv6")
	}
	return nil
}

// String describes the limit.
func (l *Limit) String() string {
	var parts []string
	if l.Rate.N > 0 {
		parts = append(parts, fmt.Sprintf("%v, %d at once", l.Rate, l.Burst))
	}
	if l.Misses.N > 0 {
		parts = append(parts, fmt.Sprintf("misses %v, %d at once", l.Misses, l.MissBurst))
	}
	by := fmt.Sprintf("client network (/%d, /%d)", l.IPv4, l.IPv6)
	if l.Header != "" {
		by = "field " + l.Header
	} else if l.Cookie != "" {
		by = "cookie " + l.Cookie
	}
	return strings.Join(parts, "; ") + "; by " + by
}

// network returns a text for the network of a client.
func network(a netip.Addr, ipv4, ipv6 int) string {
	a = a.Unmap()
	bits := ipv6
	if a.Is4() {
		bits = ipv4
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return "" // the address is unknown
	}
	b, _ := p.Addr().MarshalBinary()
	return "@" + string(b)
}

// whose returns a text for those whose requests are counted together.
func (l *Limit) whose(r *Request) string {
	var values []string
	switch {
	case l.Header != "":
		values = r.Header[l.Header]
	case l.Cookie != "":
		values = cookies(r.Header, l.Cookie)
	}
	if len(values) == 0 {
		return network(r.Client, l.IPv4, l.IPv6)
	}
	return "=" + values[0]
}

// tally is what one request counts for.
type tally struct {
	rule   string
	hash   uint64 // of the key in the table
	pace   pace
	burst  int
	reason string // of a refusal
}

// requests returns what a request counts for.
func (l *Limit) requests(t *Table, r *Request, rule string) tally {
	return tally{rule, t.hash(l.Name, 'r', l.whose(r)), l.all, l.Burst, LimitRequests}
}

// missed returns what a request counts for when it goes to the origin.
func (l *Limit) missed(t *Table, r *Request, rule string) tally {
	return tally{rule, t.hash(l.Name, 'm', l.whose(r)), l.misses, l.MissBurst, LimitMisses}
}

// take counts. It returns the refusal if the limit is exceeded.
func (c tally) take(t *Table, now time.Time) *Response {
	if c.pace == (pace{}) {
		return nil
	}
	got := t.take(c.hash, c.pace, now)
	if got.ok {
		return nil
	}
	return tooMany(got, c.pace, c.burst, c.reason)
}

// tooMany returns the refusal of a request that exceeds a limit, with the fields of
// draft-ietf-httpapi-ratelimit-headers-10.
func tooMany(got taken, p pace, burst int, reason string) *Response {
	seconds := func(d time.Duration) string {
		return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
	}
	name := strconv.Quote(strings.TrimPrefix(reason, "limit-"))
	return &Response{Status: http.StatusTooManyRequests, Reason: reason, Detail: "too many requests",
		Header: http.Header{
			"Retry-After":      {seconds(got.retry)},
			"Ratelimit-Policy": {name + ";q=" + strconv.Itoa(burst) + ";w=" + seconds(p.tolerance)},
			"Ratelimit":        {name + ";r=0;t=" + seconds(got.retry)},
		}}
}

// checkLimits counts a request for the limits of all matching rules. Without a table it only notes
// them.
func (o *Outcome) checkLimits(found []matching, r *Request) {
	for _, m := range found {
		l := m.rule.Limit
		if l == nil {
			continue
		}
		o.Limits = append(o.Limits, l)
		if r.Table == nil {
			continue
		}
		if refusal := l.requests(r.Table, r, "").take(r.Table, r.Now); refusal != nil {
			o.refuse(m.rule, refusal)
			return
		}
		if l.misses != (pace{}) {
			o.misses = append(o.misses, l.missed(r.Table, r, m.rule.Name))
		}
	}
}

// CountsMisses reports whether Miss has to be called before the request goes to the origin.
func (o *Outcome) CountsMisses() bool { return len(o.misses) > 0 }

// Miss counts the request as a miss. If that exceeds a limit, it sets Response.
func (o *Outcome) Miss(t *Table, now time.Time) {
	for _, c := range o.misses {
		if refusal := c.take(t, now); refusal != nil {
			o.Response, o.By = refusal, c.rule
			return
		}
	}
}
