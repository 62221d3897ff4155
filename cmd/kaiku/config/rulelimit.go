package config

import (
	"net/textproto"

	"github.com/kaiku-cdn/kaiku/edge/rules"
)

// Limit limits the rate of requests.
type Limit struct {
	Rate      string `yaml:"rate"` // such as 100/s
	Burst     int    `yaml:"burst"`
	Misses    string `yaml:"misses"`
	MissBurst int    `yaml:"miss_burst"`
	Header    string `yaml:"header"`
	Cookie    string `yaml:"cookie"`
	IPv4      int    `yaml:"ipv4"` // bits of a client network
	IPv6      int    `yaml:"ipv6"`
}

func (m *ruleMaker) limit(at, name string, l *Limit) *rules.Limit {
	out := &rules.Limit{Name: name, Burst: l.Burst, MissBurst: l.MissBurst, Cookie: l.Cookie, IPv4: l.IPv4,
		IPv6:   l.IPv6,
		Header: textproto.CanonicalMIMEHeaderKey(l.Header), Rate: m.rate(at+".rate", l.Rate),
		Misses: m.rate(at+".misses", l.Misses)}
	for key, name := range map[string]string{"header": l.Header, "cookie": l.Cookie} {
		if name != "" && !headerRE.MatchString(name) {
			m.errorf(at+"."+key, "%q is not the name of a %s", name, key)
		}
	}
	if l.Header != "" && l.Cookie != "" {
		m.errorf(at, "want one of header and cookie")
	}
	if err := out.Check(); err != nil {
		m.errorf(at, "%v", err)
	}
	return out
}

func (m *ruleMaker) rate(at, text string) rules.Rate {
	if text == "" {
		return rules.Rate{}
	}
	r, err := rules.ParseRate(text)
	if err != nil {
		m.errorf(at, "%v", err)
	}
	return r
}
