package config

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Text is a string that may have several lines.
type Text string

// Size is a number of bytes. In YAML it is written as 512MiB or 512M.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// formError describes what is wrong with the form of a value, in words for the operator.
type formError string

func (e formError) Error() string { return string(e) }

func notForm(format string, a ...any) error { return formError(fmt.Sprintf(format, a...)) }

var sizeRE = regexp.MustCompile(`^(\d+) ?(?:([KMGT])(?:I?B)?|B)?$`)

// UnmarshalText parses a size. K, KB and KiB all mean 1024 bytes, and so on, as in nginx.
func (s *Size) UnmarshalText(b []byte) error {
	m := sizeRE.FindStringSubmatch(strings.ToUpper(string(b)))
	switch {
	case m == nil:
		return notForm("%q is not a size: want a whole number and K, M, G or T, such as 512M or 10G; M, MB and MiB are all 1024 × 1024 bytes", b)
	case m[1] == string(b) && m[1] != "0":
		return notForm("%q is not a size: it has no unit: write %sM or %sG", b, b, b)
	}
	unit := int64(1) << (10 * (1 + strings.Index("KMGT", m[2])))
	if m[2] == "" {
		unit = 1
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > (1<<62)/unit {
		return notForm("%q is more than can be counted", b)
	}
	*s = Size(n * unit)
	return nil
}

// String returns the size in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if n := int64(s); n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// About returns the size with about three significant digits.
func (s Size) About() string {
	for _, u := range sizeUnits {
		if n := float64(s) / float64(u.bytes); n >= 1 {
			return strconv.FormatFloat(n, 'f', max(0, 2-len(strconv.Itoa(int(n)))), 64) + u.name
		}
	}
	return "0B"
}

// Set implements pflag.Value, so that a Size can be a flag.
func (s *Size) Set(text string) error { return s.UnmarshalText([]byte(text)) }

// Type implements pflag.Value. It is the name of the value in the help.
func (s *Size) Type() string { return "size" }

// Duration is a time.Duration that is not negative. It is written as 30s or 1h30m.
type Duration time.Duration

var durationRE = regexp.MustCompile(`^([\d.]+(ns|us|µs|ms|s|m|h|d|w))+$`)

var durationPartRE = regexp.MustCompile(`([\d.]+)([a-zµ]+)`)

// UnmarshalText parses a duration in Go's forms, or in days or weeks.
func (d *Duration) UnmarshalText(b []byte) error {
	text := string(b)
	if text == "0" {
		*d = 0
		return nil
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		if n < 0 {
			return notForm("%q is negative", b)
		}
		return notForm("%q is not a duration: it has no unit: write %ss or %sm", b, b, b)
	}
	if strings.HasPrefix(text, "-") && durationRE.MatchString(text[1:]) {
		return notForm("%q is negative", b)
	}
	if !durationRE.MatchString(text) {
		return notForm("%q is not a duration: want a form like 500ms, 30s, 1h30m, 1d or 2w", b)
	}
	var sum time.Duration
	for _, m := range durationPartRE.FindAllStringSubmatch(text, -1) {
		hours := map[string]time.Duration{"d": 24, "w": 7 * 24}[m[2]]
		unit := m[2]
		if hours > 0 {
			unit = "h"
		}
		part, err := time.ParseDuration(m[1] + unit)
		hours = max(hours, 1)
		if err != nil || part > (math.MaxInt64-sum)/hours {
			return notForm("%q is not a duration, or longer than 290 years", b)
		}
		sum += part * hours
	}
	*d = Duration(sum)
	return nil
}

// OriginURL is the URL of an origin server: scheme http or https, host and port.
type OriginURL struct{ *url.URL }

// UnmarshalText parses a URL. It refuses parts that an origin server can't have.
func (o *OriginURL) UnmarshalText(b []byte) error {
	u, err := url.Parse(string(b))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || !IsHost(u.Hostname()) {
		return notForm("%q is not an origin: want http://host[:port] or https://host[:port]", b)
	}
	if port := u.Port(); strings.HasSuffix(u.Host, ":") || port != "" && !isPort(port) {
		return notForm("%q: the port of an origin is 1 to 65535", b)
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return notForm("%q has more than scheme, host and port: requests keep the path that the client asked for", b)
	}
	o.URL = u
	return nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
