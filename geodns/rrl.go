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

// RateLimit is how many responses a client network (a /24 of IPv4, a /56 of IPv6) is sent over UDP.
// Whoever asks with the forged address of somebody else has us flood them: what is over the limit
// is not sent. It is the source address of a packet that counts, which is what is forged, never its
// client subnet. Clients that have shown with a cookie (RFC 7873) that they get what is sent to
// their address are not limited, nor are those that come over TCP.
type RateLimit struct {
	// Responses is how many answers a second of one name of a zone, or referrals; 0 is 1000, a
	// million the most. Negative is no limit at all, for errors neither. Of all names together it
	// is 512 times as many octets a second by which responses are longer than three times their
	// queries: 500 KiB of them.
	Responses int
	// Errors is how many negative answers a second of one zone, or of one error; 0 is 200, a
	// million the most. Negative is no limit for them.
	Errors int
	// Slip is the number of responses over the limit of which one is sent, empty, so that a real
	// client comes back over TCP: 0 is 2, so that every other is, 255 the most. Negative is none.
	Slip int
	// Exempt are networks that are not limited. nil is loopback and all that is private: nobody out
	// there can be flooded with an address of these, and tests and monitoring have them. Empty is
	// none.
	Exempt []netip.Prefix
}

// privateNetworks are those of RFC 1918, RFC 4193, RFC 6598, and the link-local and loopback ones.
func privateNetworks() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"} {
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

// Time is counted in ticks of 100 ns: a bucket's 56 bits of them are 228 years.
const (
	tick   = 100 * time.Nanosecond
	second = uint64(time.Second / tick)
)

// rates is a RateLimit as it is worked with.
type rates struct {
	responses, errors uint64 // ticks that one of them takes; 0 is no limit
	slip              uint64 // 0 is none
	exempt            []netip.Prefix
}

// exempts tells whether a client is not limited.
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

// answerKind is what of responses is limited together.
type answerKind uint16

const (
	positive answerKind = iota // by name of the zone: the wildcard's, not what was asked for, of which there is no end
	negative                   // NXDOMAIN and NODATA, by zone
	referral                   // all of them
	failure                    // plus the rcode: all of one

	amplified answerKind = 1 << 15 // what is longer than amplification allows, whatever it is
)

const (
	// amplification is how many times as long as its query a response may be without counting as
	// amplified, as in RFC 9000 section 8.1: most responses with addresses are no longer.
	amplification = 3
	// excessUnit is how many octets beyond that count as one response.
	excessUnit = 512
)

type verdict int

const (
	send verdict = iota
	slip         // say that it must be asked for in another way
	drop
)

// limiter is a table of token buckets. Its size is fixed, so that no flood costs memory: a network
// and kind may share a bucket with another. Which do is a secret; two that are both near their
// limits are few among so many, and what is over a limit that is shared by chance still slips.
//
// A bucket is one word, changed by compare-and-swap, so that goroutines don't wait for each other:
// above, when it will be full again (the generic cell rate algorithm: a full one holds a second's
// worth), below, 8 bits of how many were not sent since the last that slipped.
type limiter struct {
	start   time.Time
	k0, k1  uint64
	buckets [1 << 16]atomic.Uint64
}

func newLimiter() *limiter {
	return &limiter{start: time.Now(), k0: rand.Uint64(), k1: rand.Uint64()}
}

// now is the time in ticks. Reading the clock costs more than all else here: a batch of packets may
// share one.
func (l *limiter) now() uint64 { return uint64(time.Since(l.start) / tick) }

// take decides about a response of a kind, and about which name or zone, to a client.
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

// takeExcess decides about a response that is longer than amplification allows, by a number of
// octets. A client network gets excessUnit times RateLimit.Responses of them a second, of all names
// together.
func (l *limiter) takeExcess(now uint64, r rates, excess int, client netip.Addr) verdict {
	bucket := &l.buckets[l.hash(amplified, "", client)%uint64(len(l.buckets))]
	return admit(bucket, now, r.responses*uint64(excess)/excessUnit, r.slip)
}

// hash is keyed where a client could choose what goes in: of names there are only those of our
// zones.
func (l *limiter) hash(kind answerKind, about string, client netip.Addr) uint64 {
	hi, lo := bits.Mul64(networkOf(client)^l.k0, xxhash.Sum64String(about)+uint64(kind)^l.k1)
	hi, lo = bits.Mul64(hi^l.k1, lo^l.k0)
	return hi ^ lo
}

// admit takes one from a bucket, if it is there.
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

// kind tells what the response counts as, and what it is about.
func (r *resolver) kind() (kind answerKind, about string) {
	switch {
	case len(r.answer) > 0:
		return positive, string(r.subject)
	case r.rcode == dns.RcodeSuccess && !r.aa && len(r.authority) > 0:
		return referral, ""
	case r.rcode == dns.RcodeSuccess && r.aa || r.rcode == dns.RcodeNameError:
		return negative, r.authority[0].owner
	}
	return failure + answerKind(r.rcode), ""
}

// withhold makes the response one that sends the client to where it can show that it is real: over
// TCP, or, where it knows of cookies, back here with the one that it is given (RFC 7873 section
// 5.2.3). But for that it is no longer than the query.
func (r *resolver) withhold() {
	r.answer, r.authority, r.additional = r.answer[:0], r.authority[:0], r.additional[:0]
	r.served, r.allDown, r.scope = r.served[:0], false, 0
	r.nsid = ""
	if r.q.cookie != nil {
		r.rcode, r.aa = dns.RcodeBadCookie, false
		return
	}
	r.truncated = true
}
