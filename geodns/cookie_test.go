package geodns

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCookieVectors checks the examples of RFC 9018 appendix A.
func TestCookieVectors(t *testing.T) {
	const (
		secret  = "e5e973e5a6b2a43f48e7dc849e37bfcf"
		before  = "dd3bdf9344b678b185a6f5cb60fca715" // the old secret of A.4
		after   = "445536bcd2513298075a5d379663c962"
		client6 = "2001:db8:220:1:59de:d0f4:8769:82b8"
	)
	for _, test := range []struct {
		name, secret, client, option string
		now                          uint32
		proven                       bool
		// "" means any cookie other than option.
		want string
	}{
		{name: "A.1 a new one", secret: secret, client: "198.51.100.100", option: "2464c4abcf10c957", now: 0x5cf79f11,
			want: "2464c4abcf10c957010000005cf79f111f8130c3eee29480"},
		{name: "A.2 a renewed one", secret: secret, client: "198.51.100.100",
			option: "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
			now:    0x5cf7a871, proven: true, want: "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"},
		{name: "A.3 reserved octets", secret: secret, client: "203.0.113.203",
			option: "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
			now:    0x5cf78f71 + 3600, proven: true},
		{name: "A.4 before the rollover", secret: before, client: client6,
			option: "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
			now:    0x5cf7c579 + 60, proven: true, want: "22681ab97d52c298010000005cf7c57926556bd0934c72f8"},
		{name: "A.4 after the rollover", secret: after, client: client6,
			option: "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
			now:    0x5cf7c609, want: "22681ab97d52c298010000005cf7c609a6bb79d16625507a"},
	} {
		c := newCookies([][16]byte{[16]byte(unhex(t, test.secret))})
		option := unhex(t, test.option)
		reply, proven := c.reply(option, netip.MustParseAddr(test.client), time.Unix(int64(test.now), 0))
		got := hex.EncodeToString(reply[:])
		if proven != test.proven || test.want != "" && got != test.want || test.want == "" && got == test.option {
			t.Errorf("%s: is %s, proven %v", test.name, got, proven)
		}
	}
}

// TestCookieValidity checks RFC 9018 section 4.3, and what a cookie depends on.
func TestCookieValidity(t *testing.T) {
	c, other := newCookies([][16]byte{{1}}), newCookies(nil)
	client := netip.MustParseAddr("192.0.2.1")
	made := time.Unix(1<<32-1000, 0) // the timestamp wraps during the test
	fresh, _ := c.reply(unhex(t, "0102030405060708"), client, made)
	change := func(at int) []byte { b := slices.Clone(fresh[:]); b[at] ^= 1; return b }
	for _, test := range []struct {
		name           string
		cookies        cookies
		option         []byte
		from           string
		after          time.Duration
		proven, renews bool
	}{
		{name: "at once", cookies: c, option: fresh[:], from: "192.0.2.1", proven: true},
		{name: "30 minutes", cookies: c, option: fresh[:], from: "192.0.2.1", after: 30 * time.Minute, proven: true},
		{name: "over 30 minutes", cookies: c, option: fresh[:], from: "192.0.2.1", after: 30*time.Minute + time.Second,
			proven: true, renews: true},
		{name: "an hour", cookies: c, option: fresh[:], from: "192.0.2.1", after: time.Hour, proven: true,
			renews: true},
		{name: "over an hour", cookies: c, option: fresh[:], from: "192.0.2.1", after: time.Hour + time.Second,
			renews: true},
		{name: "5 minutes ahead", cookies: c, option: fresh[:], from: "192.0.2.1", after: -5 * time.Minute,
			proven: true},
		{name: "over 5 minutes ahead", cookies: c, option: fresh[:], from: "192.0.2.1",
			after: -5*time.Minute - time.Second, renews: true},
		{name: "another client", cookies: c, option: fresh[:], from: "192.0.2.2", renews: true},
		{name: "another secret", cookies: other, option: fresh[:], from: "192.0.2.1", renews: true},
		{name: "another client cookie", cookies: c, option: change(0), from: "192.0.2.1", renews: true},
		{name: "another version", cookies: c, option: change(8), from: "192.0.2.1", renews: true},
		{name: "another reserved", cookies: c, option: change(9), from: "192.0.2.1", renews: true},
		{name: "another time", cookies: c, option: change(15), from: "192.0.2.1", renews: true},
		{name: "another hash", cookies: c, option: change(23), from: "192.0.2.1", renews: true},
		{name: "a longer one", cookies: c, option: append(slices.Clone(fresh[:]), 0), from: "192.0.2.1", renews: true},
		{name: "a client cookie alone", cookies: c, option: fresh[:8], from: "192.0.2.1", renews: true},
	} {
		from, now := netip.MustParseAddr(test.from), made.Add(test.after)
		reply, proven := test.cookies.reply(test.option, from, now)
		if proven != test.proven {
			t.Errorf("%s: proven %v", test.name, proven)
		}
		if renewed := !slices.Equal(reply[:], test.option); renewed != test.renews {
			t.Errorf("%s: %x is answered with %x", test.name, test.option, reply)
		}
		if _, proven := test.cookies.reply(reply[:], from, now); !proven || !slices.Equal(reply[:8], test.option[:8]) {
			t.Errorf("%s: is answered with %x, which is not good", test.name, reply)
		}
	}
	if slices.Equal(newCookies(nil), other) {
		t.Error("two random secrets are the same")
	}
}

// TestCookieRollover changes the secret (RFC 9018 section 5). Cookies of the old secret are
// accepted and replaced.
func TestCookieRollover(t *testing.T) {
	before, both, after := newCookies([][16]byte{{1}}), newCookies([][16]byte{{2}, {1}}), newCookies([][16]byte{{2}})
	client, now := netip.MustParseAddr("192.0.2.1"), time.Unix(1<<31, 0)
	old, _ := before.reply(unhex(t, "0102030405060708"), client, now)
	renewed, proven := both.reply(old[:], client, now)
	if !proven || renewed == old {
		t.Errorf("a cookie of before: proven %v, answered with %x", proven, renewed)
	}
	if _, proven := both.reply(old[:], client, now.Add(cookieAge+time.Second)); proven {
		t.Error("a cookie of before is good when it is too old")
	}
	if same, proven := after.reply(renewed[:], client, now); !proven || same != renewed {
		t.Errorf("its renewed one: proven %v, answered with %x", proven, same)
	}
	if _, proven := after.reply(old[:], client, now); proven {
		t.Error("a cookie of a secret that was given up is good")
	}
}

// cookieOf returns the cookie of a response.
func cookieOf(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	for _, o := range m.IsEdns0().Option {
		if c, ok := o.(*dns.EDNS0_COOKIE); ok {
			return unhex(t, c.Cookie)
		}
	}
	return nil
}

// TestCookie sends queries with cookies (RFC 7873 section 5.2).
func TestCookie(t *testing.T) {
	const client = "0102030405060708"
	for _, test := range []struct {
		name, option string
		rcode        int
	}{
		{name: "client cookie alone", option: client},
		{name: "server cookie of 8 octets", option: client + strings.Repeat("00", 8)},
		{name: "server cookie of 16 octets", option: client + "01" + strings.Repeat("00", 15)},
		{name: "server cookie of 32 octets", option: client + strings.Repeat("00", 32)},
		{name: "nothing", rcode: dns.RcodeFormatError},
		{name: "7 octets", option: client[2:], rcode: dns.RcodeFormatError},
		{name: "9 octets", option: client + "00", rcode: dns.RcodeFormatError},
		{name: "15 octets", option: client + strings.Repeat("00", 7), rcode: dns.RcodeFormatError},
		{name: "41 octets", option: client + strings.Repeat("00", 33), rcode: dns.RcodeFormatError},
	} {
		s := newServer(t, testConfig(t))
		resp := mustAnswer(t, s, withOptions(t, "mail.example.com. A", "cookie:"+test.option,
			"cookie:ffffffffffffffff"), nowhere, false)
		got := cookieOf(t, resp)
		if resp.Rcode != test.rcode {
			t.Errorf("%s: response is %v", test.name, resp)
		}
		if test.rcode != dns.RcodeSuccess {
			if got != nil || len(resp.Answer) > 0 {
				t.Errorf("%s: response is %v", test.name, resp)
			}
			continue
		}
		wantRRs(t, test.name, resp.Answer, mail...)
		if _, proven := s.cookies.reply(got, nowhere.Addr(), time.Now()); !proven ||
			hex.EncodeToString(got[:8]) != client {
			t.Errorf("%s: cookie is %x", test.name, got)
		}
	}
}

// TestCookieFleet checks that servers with the same secret make the same cookie.
func TestCookieFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got [3][]byte
		for i, secret := range [][16]byte{{7}, {7}, {8}} {
			s := &Server{CookieSecrets: [][16]byte{secret}}
			if err := s.Reload(testConfig(t)); err != nil {
				t.Fatal(err)
			}
			got[i] = cookieOf(t, mustAnswer(t, s, withOptions(t, "mail.example.com. A", "cookie:0102030405060708"),
				nowhere, false))
		}
		if !slices.Equal(got[0], got[1]) || slices.Equal(got[0], got[2]) {
			t.Errorf("cookies are %x", got)
		}
	})
}

// TestCookieAlone sends queries without a question (RFC 7873 section 5.4).
func TestCookieAlone(t *testing.T) {
	s := newServer(t, testConfig(t))
	alone := func(options ...string) *dns.Msg {
		m := withOptions(t, "example.com. A", options...)
		m.Question = nil
		return mustAnswer(t, s, m, nowhere, false)
	}
	resp := alone("cookie:0102030405060708")
	good := cookieOf(t, resp)
	if resp.Rcode != dns.RcodeSuccess || resp.Authoritative || len(resp.Question) != 0 ||
		binary.BigEndian.Uint64(good) != 0x0102030405060708 {
		t.Errorf("response is %v", resp)
	}
	if resp = alone("cookie:" + hex.EncodeToString(good)); resp.Rcode != dns.RcodeSuccess ||
		!slices.Equal(cookieOf(t, resp), good) {
		t.Errorf("a good cookie gets %v", resp)
	}
	bad := slices.Clone(good)
	bad[20] ^= 1
	resp = alone("cookie:" + hex.EncodeToString(bad))
	if _, proven := s.cookies.reply(cookieOf(t, resp), nowhere.Addr(), time.Now()); resp.Rcode != dns.RcodeBadCookie ||
		!proven {
		t.Errorf("a bad cookie gets %v", resp)
	}
	if resp = alone("nsid:"); resp.Rcode != dns.RcodeFormatError {
		t.Errorf("no cookie gets %v", resp)
	}
}
