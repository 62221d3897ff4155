package geodns

import (
	"errors"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/miekg/dns"
)

// RateLimit limits the responses over UDP to each client network, a /24 of IPv4 or a /56 of IPv6. A
// sender of queries with a forged source address would otherwise use the server to flood the owner
// of that address. Responses over the limit are not sent. The client network is that of the
// packet's source address, which is what is forged, and never that of the client subnet. Clients
// over TCP are not limited, nor are clients whose cookie (RFC 7873) proves that they receive
// packets at their source address.
type RateLimit struct {
	// Responses is the limit of answers per second about one name of a zone, and of referrals per
	// second. 0 means 1000. The maximum is a million. A negative value removes all limits,
	// including Errors. Responses also bounds long responses to all names together: a client
	// network gets at most 512 × Responses octets per second beyond three times the lengths of its
	// queries. That is 500 KiB per second by default.
	Responses int
	// Errors is the limit of negative answers per second about one zone, and of responses per
	// second with one error. 0 means 200. The maximum is a million. A negative value removes this
	// limit.
	Errors int
	// Slip is n if one in n responses over the limit is sent as an empty response, so that a real
	// client retries over TCP. 0 means 2. The maximum is 255. A negative value means that none is
	// sent.
	Slip int
	// Exempt lists networks that are not limited. nil means the loopback, private and link-local
	// networks: their addresses can't be used to flood anybody on the Internet, and tests and
	// monitoring use them. An empty list means none.
	Exempt []netip.Prefix
}

// privateNetworks returns the networks of RFC 1918, RFC 4193 and RFC 6598, and the link-local and
// loopback networks.
func privateNetworks() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
		"100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"} {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func (r RateLimit) check() error {
	if r.Responses > 1e6 || r.Errors > 1e6 {
		return errors.New("rate limit: more than a million responses a second")
	}
	if r.Slip > 255 {
		return errors.New("rate limit: slip is more than 255")
	}
	return nil
}

// Time is counted in ticks of 100 ns. The 56 bits of a bucket are enough for 228 years.
const (
	tick   = 100 * time.Nanosecond
	second = uint64(time.Second / tick)
)

// rates is a RateLimit in the form that the limiter uses.
type rates struct {
	responses, errors uint64 // ticks per response; 0 means no limit
	slip              uint64 // 0 means none
	exempt            []netip.Prefix
}

// exempts reports whether the client is not limited.
func (r *rates) exempts(client netip.Addr) bool {
	for _, p := range r.exempt {
		if p.Contains(client) {
			return true
		}
	}
	return false
}

func (r RateLimit) rates() rates {
	apiece := func(n, normal int) uint64 {
		switch {
		case n < 0:
			return 0
		case n == 0:
			n = normal
		}
		return second / uint64(n)
	}
	if r.Responses < 0 {
		return rates{}
	}
	made := rates{responses: apiece(r.Responses, 1000), errors: apiece(r.Errors, 200), slip: 2, exempt: r.Exempt}
	if r.Exempt == nil {
		made.exempt = privateNetworks()
	}
	if r.Slip != 0 {
		made.slip = uint64(max(0, r.Slip))
	}
	return made
}

// answerKind is a kind of response. Responses of one kind about one subject share a limit.
type answerKind uint16

const (
	// By name in the zone. Names below a wildcard count as the wildcard, because there are
	// infinitely many.
	positive answerKind = iota
	negative            // NXDOMAIN and NODATA, by zone
	referral            // all referrals together
	failure             // plus the rcode: all responses with that rcode together

	amplified answerKind = 1 << 15 // all responses that are longer than amplification allows
)

const (
	// amplification is how many times as long as its query a response may be without counting as
	// amplified. The value is that of RFC 9000 section 8.1. Most responses with addresses are
	// shorter.
	amplification = 3
	// excessUnit is how many octets beyond that count as one response.
	excessUnit = 512
)

type verdict int

const (
	send verdict = iota
	slip         // send an empty response that makes the client retry in another way
	drop
)

// limiter is a table of token buckets of fixed size, so that no flood makes it grow. Two pairs of
// network and kind may share a bucket. Clients can't find out which ones do. Sharing rarely
// matters, because it takes two that are near their limits. Some of the responses over a limit that
// is shared by chance still slip.
//
// A bucket is one word that is changed by compare-and-swap, so that goroutines don't wait for each
// other. Its upper 56 bits are the time when the bucket will be full again (the generic cell rate
// algorithm). A full bucket holds the responses of one second. Its lower 8 bits count the responses
// that were not sent since the last one that slipped.
type limiter struct {
	start   time.Time
	k0, k1  uint64
	buckets [1 << 16]atomic.Uint64
}

func newLimiter() *limiter {
	return &limiter{start: time.Now(), k0: rand.Uint64(), k1: rand.Uint64()}
}

// now returns the time in ticks. Reading the clock costs more than the rest of the limiter, so the
// packets of a batch may share one reading.
func (l *limiter) now() uint64 { return uint64(time.Since(l.start) / tick) }

// take decides about a response of the given kind to a client. about is the name or zone that it is
// about.
func (l *limiter) take(now uint64, r rates, kind answerKind, about string, client netip.Addr) verdict {
	apiece := r.responses
	if kind == negative || kind >= failure {
		apiece = r.errors
	}
	if apiece == 0 {
		return send
	}
	bucket := &l.buckets[l.hash(kind, about, client)%uint64(len(l.buckets))]
	return admit(bucket, now, apiece, r.slip)
}

// takeExcess decides about a response that is excess octets longer than amplification allows. A
// client network gets excessUnit × RateLimit.Responses such octets per second, of all names
// together.
func (l *limiter) takeExcess(now uint64, r rates, excess int, client netip.Addr) verdict {
	bucket := &l.buckets[l.hash(amplified, "", client)%uint64(len(l.buckets))]
	return admit(bucket, now, r.responses*uint64(excess)/excessUnit, r.slip)
}

// hash returns the hash of a bucket. It is keyed against clients that choose their address and the
// kind. about needs no key, because it is always a name of the server's zones.
func (l *limiter) hash(kind answerKind, about string, client netip.Addr) uint64 {
	hi, lo := bits.Mul64(networkOf(client)^l.k0, xxhash.Sum64String(about)+uint64(kind)^l.k1)
	hi, lo = bits.Mul64(hi^l.k1, lo^l.k0)
	return hi ^ lo
}

// admit takes the cost of one response, apiece ticks, from a bucket if the bucket has enough.
func admit(bucket *atomic.Uint64, now, apiece, slips uint64) verdict {
	for {
		old := bucket.Load()
		full, unsent := old>>8, old&0xff
		if next := max(full, now) + apiece; next <= now+second {
			if bucket.CompareAndSwap(old, next<<8|unsent) {
				return send
			}
			continue
		}
		if slips == 0 {
			return drop
		}
		unsent++
		result := drop
		if unsent >= slips {
			unsent, result = 0, slip
		}
		if bucket.CompareAndSwap(old, full<<8|unsent) {
			return result
		}
	}
}

// kind returns what kind of response it is and what it is about, for the rate limit.
func (r *resolver) kind() (kind answerKind, about string) {
	switch {
	case len(r.answer) > 0:
		return positive, string(r.subject)
	case r.rcode == dns.RcodeSuccess && !r.aa && len(r.authority) > 0:
		return referral, ""
	case r.rcode == dns.RcodeSuccess && r.aa || r.rcode == dns.RcodeNameError:
		return negative, r.zone.soa.owner
	}
	return failure + answerKind(r.rcode), ""
}

// withhold empties the response and makes it tell the client how to prove its address: by retrying
// over TCP, or, if the client sent a cookie, by returning the new cookie (RFC 7873 section 5.2.3).
// The response is no longer than the query except for the cookie.
func (r *resolver) withhold() {
	r.empty()
	r.served, r.allDown, r.scope = r.served[:0], false, 0
	r.nsid = ""
	if r.q.cookie != nil {
		r.rcode, r.aa = dns.RcodeBadCookie, false
		return
	}
	r.truncated = true
}
