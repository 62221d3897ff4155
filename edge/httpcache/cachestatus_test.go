package httpcache

import (
	"testing"
	"time"
)

// RFC 9211, with values as in RFC 9651.
func TestStatusAppend(t *testing.T) {
	for _, c := range []struct {
		s    Status
		want string
	}{
		{Status{}, "kaiku"},
		{Status{Hit: true}, "kaiku; hit"},
		{Status{Hit: true, TTL: 30 * time.Second, HasTTL: true, Key: "http://a/b"},
			`kaiku; hit; ttl=30; key="http://a/b"`},
		{Status{Forward: "uri-miss", FwdStatus: 200, Stored: true, Collapsed: true},
			"kaiku; fwd=uri-miss; fwd-status=200; stored; collapsed"},
		{Status{Forward: "stale", FwdStatus: 304, HasTTL: true}, "kaiku; fwd=stale; fwd-status=304; ttl=0"},
		// A TTL is rounded down, so that a stale response never looks fresh.
		{Status{Hit: true, HasTTL: true, TTL: 1999 * time.Millisecond}, "kaiku; hit; ttl=1"},
		{Status{Hit: true, HasTTL: true, TTL: -1}, "kaiku; hit; ttl=-1"},
		{Status{Hit: true, HasTTL: true, TTL: -time.Second}, "kaiku; hit; ttl=-1"},
		{Status{Hit: true, HasTTL: true, TTL: -1001 * time.Millisecond}, "kaiku; hit; ttl=-2"},
		// A detail is a Token if possible, else a String.
		{Status{Forward: "miss", Detail: "timeout"}, "kaiku; fwd=miss; detail=timeout"},
		{Status{Forward: "miss", Detail: "connect-failed"}, "kaiku; fwd=miss; detail=connect-failed"},
		{Status{Detail: "two words"}, `kaiku; detail="two words"`},
		{Status{Detail: "503"}, `kaiku; detail="503"`},
		{Status{Detail: "-x"}, `kaiku; detail="-x"`},
		{Status{Detail: "_x"}, `kaiku; detail="_x"`}, // a tchar, but a Token can't begin with it
		{Status{Detail: "!"}, `kaiku; detail="!"`},
		{Status{Detail: "*x"}, "kaiku; detail=*x"},
		// Strings.
		{Status{Key: `a"b\c`}, `kaiku; key="a\"b\\c"`},
		{Status{Key: "a\r\nSet-Cookie: x\x00\x7f"}, `kaiku; key="a??Set-Cookie: x??"`},
		{Status{Key: "ä"}, `kaiku; key="??"`},
	} {
		if got := string(c.s.Append(nil, "kaiku")); got != c.want {
			t.Errorf("%+v\n got %s\nwant %s", c.s, got, c.want)
		}
	}
	if got := string(Status{Hit: true}.Append([]byte("other; hit, "), "kaiku")); got != "other; hit, kaiku; hit" {
		t.Errorf("appended: %s", got)
	}
}
