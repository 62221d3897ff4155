package geodns

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/dchest/siphash"
)

// Lengths in octets of the parts of a COOKIE option (RFC 7873 section 4) and of this server's
// cookies (RFC 9018 section 4).
const (
	clientCookie    = 8
	minServerCookie = 8
	maxServerCookie = 32
	ourServerCookie = 16
	ourCookie       = clientCookie + ourServerCookie
)

// Times from RFC 9018 section 4.3 for the timestamp of a server cookie.
const (
	cookieAge   = time.Hour        // a cookie that is older is not accepted
	cookieAhead = 5 * time.Minute  // a server whose clock is fast may have made it
	cookieRenew = 30 * time.Minute // a cookie that is older is accepted, and replaced by a new one
)

// cookies makes and checks server cookies (RFC 9018). All servers with the same secret make the
// same cookies, so a client may use any server of a name or of an anycast address. The first key
// makes new cookies. Cookies of all keys are accepted, so that the servers can change to another
// secret one after the other (RFC 9018 section 5).
type cookies []cookieKey

type cookieKey struct{ k0, k1 uint64 }

// newCookies returns the cookies made with the given secrets. Without secrets it uses a random one.
func newCookies(secrets [][16]byte) cookies {
	if len(secrets) == 0 {
		secrets = make([][16]byte, 1)
		_, _ = rand.Read(secrets[0][:]) // never fails
	}
	c := make(cookies, len(secrets))
	for i, s := range secrets {
		c[i] = cookieKey{binary.LittleEndian.Uint64(s[:]), binary.LittleEndian.Uint64(s[8:])}
	}
	return c
}

// cookieFits reports whether b is the data of a well-formed COOKIE option: a client cookie alone,
// or with a server cookie of a permitted length. Anything else gets FORMERR (RFC 7873 section
// 5.2.2).
func cookieFits(b []byte) bool {
	server := len(b) - clientCookie
	return server == 0 || minServerCookie <= server && server <= maxServerCookie
}

// reply returns the COOKIE option that answers a well-formed one. proven reports whether the option
// has a valid server cookie of this fleet. Such a cookie proves that the client has received a
// packet at its address within the last hour (RFC 7873 section 5.2.5).
func (c cookies) reply(option []byte, client netip.Addr, now time.Time) (reply [ourCookie]byte, proven bool) {
	if len(option) == ourCookie && option[clientCookie] == 1 {
		stamp := binary.BigEndian.Uint32(option[clientCookie+4:])
		// RFC 9018 section 4.3 requires serial number arithmetic (RFC 1982), because the timestamp
		// wraps in 2106.
		age := time.Duration(int32(uint32(now.Unix())-stamp)) * time.Second
		keyIndex := -1
		if -cookieAhead <= age && age <= cookieAge {
			keyIndex = slices.IndexFunc(c, func(k cookieKey) bool {
				sum := k.sum(option[:clientCookie+8], client)
				return subtle.ConstantTimeCompare(sum[:], option[clientCookie+8:]) == 1
			})
		}
		if keyIndex == 0 && age <= cookieRenew {
			return [ourCookie]byte(option), true
		}
		proven = keyIndex >= 0
	}
	copy(reply[:], option[:clientCookie])
	reply[clientCookie] = 1 // version; the three octets after it are reserved
	binary.BigEndian.PutUint32(reply[clientCookie+4:], uint32(now.Unix()))
	sum := c[0].sum(reply[:clientCookie+8], client)
	copy(reply[clientCookie+8:], sum[:])
	return reply, proven
}

// sum returns the hash part of a server cookie (RFC 9018 section 4.4). head is what precedes the
// hash. client is the client's address.
func (k cookieKey) sum(head []byte, client netip.Addr) (sum [8]byte) {
	var in [clientCookie + 8 + 16]byte
	n := copy(in[:], head)
	if client.Is4() {
		addr := client.As4()
		n += copy(in[n:], addr[:])
	} else {
		addr := client.As16()
		n += copy(in[n:], addr[:])
	}
	binary.LittleEndian.PutUint64(sum[:], siphash.Hash(k.k0, k.k1, in[:n]))
	return sum
}
