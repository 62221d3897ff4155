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

// Lengths of the parts of a COOKIE option (RFC 7873 section 4), and of the server cookie that we
// make (RFC 9018 section 4).
const (
	clientCookie    = 8
	minServerCookie = 8
	maxServerCookie = 32
	ourServerCookie = 16
	ourCookie       = clientCookie + ourServerCookie
)

// How long a server cookie is good (RFC 9018 section 4.3).
const (
	cookieAge   = time.Hour        // older ones are not taken
	cookieAhead = 5 * time.Minute  // from servers whose clock is before ours
	cookieRenew = 30 * time.Minute // older ones are taken, and answered with a new one
)

// cookies makes and checks the server cookies of RFC 9018. All servers with one secret make the
// same, so that a client may go from one to another of a name, or of an anycast address. The first
// key makes them, and those of all are good, so that the servers can get another secret one after
// the other (RFC 9018 section 5).
type cookies []cookieKey

type cookieKey struct{ k0, k1 uint64 }

// newCookies takes the secrets. Without any there is a random one.
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

// cookieFits tells whether an option's data is a client cookie, alone or with a server cookie of a
// length that some server may make. All else is FORMERR (RFC 7873 section 5.2.2).
func cookieFits(b []byte) bool {
	server := len(b) - clientCookie
	return server == 0 || minServerCookie <= server && server <= maxServerCookie
}

// reply gives the option that answers one that fits. proven means that its server cookie is ours:
// the client has got a packet at its address within the hour (RFC 7873 section 5.2.5).
func (c cookies) reply(asked []byte, client netip.Addr, now time.Time) (reply [ourCookie]byte, proven bool) {
	if len(asked) == ourCookie && asked[clientCookie] == 1 {
		stamp := binary.BigEndian.Uint32(asked[clientCookie+4:])
		// Serial number arithmetic (RFC 1982), as RFC 9018 section 4.3 wants it: the time wraps in
		// 2106.
		age := time.Duration(int32(uint32(now.Unix())-stamp)) * time.Second
		by := -1
		if -cookieAhead <= age && age <= cookieAge {
			by = slices.IndexFunc(c, func(k cookieKey) bool {
				sum := k.sum(asked[:clientCookie+8], client)
				return subtle.ConstantTimeCompare(sum[:], asked[clientCookie+8:]) == 1
			})
		}
		if by == 0 && age <= cookieRenew {
			return [ourCookie]byte(asked), true
		}
		proven = by >= 0
	}
	copy(reply[:], asked[:clientCookie])
	reply[clientCookie] = 1 // version; three octets are reserved
	binary.BigEndian.PutUint32(reply[clientCookie+4:], uint32(now.Unix()))
	sum := c[0].sum(reply[:clientCookie+8], client)
	copy(reply[clientCookie+8:], sum[:])
	return reply, proven
}

// sum is the hash of a server cookie (RFC 9018 section 4.4): of all that stands before it, and of
// the client's address.
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
