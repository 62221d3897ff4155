package edge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/front"
)

// alikeRequests are the requests of TestProtocolsAnswerAlike.
func alikeRequests() []alikeRequest {
	var list []alikeRequest
	for _, some := range [][]alikeRequest{alikeKinds(), alikeBodies(), alikeFieldsOf(), alikeTargets(),
		alikeMalformed()} {
		for _, q := range some { // each asks for something of its own
			n := fmt.Sprintf("%03d", len(list))
			q.number = n
			if strings.HasPrefix(q.target, "/") && !strings.HasPrefix(q.target, "/.kaiku") {
				q.target += n
			}
			q.line = strings.ReplaceAll(q.line, "{n}", n)
			for i, f := range q.replaced {
				q.replaced[i].Value = strings.ReplaceAll(f.Value, "{n}", n)
			}
			list = append(list, q)
		}
	}
	return list
}

func rawField(name, value string) hpack.HeaderField {
	return hpack.HeaderField{Name: name, Value: value}
}

// alikePlain is a request for what the origin answers in a way of its own.
func alikePlain(method, kind string, status int, fields ...hpack.HeaderField) alikeRequest {
	return alikeRequest{name: method + " " + kind, status: status,
		rawMessage: rawMessage{rawRequest: rawRequest{method, "www.example", "/" + kind + "/{p}", fields}}}
}

// with returns a request that is changed.
func (q alikeRequest) with(name string, change func(q *alikeRequest)) alikeRequest {
	q.name += ", " + name
	change(&q)
	return q
}

// alikeKinds are requests for all that the origin has.
func alikeKinds() (list []alikeRequest) {
	kinds := map[string]int{"fresh": 200, "unknown": 200, "large": 200, "private": 200, "stale": 200, "etag": 200,
		"vary": 200, "untyped": 200, "empty": 200, "nothing": 204, "moved": 301,
		"absent": 404, "broken": 500, "hints": 200, "trailers": 200}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			list = append(list, alikePlain(method, kind, kinds[kind]))
		}
		list = append(list, alikePlain("HEAD", kind, kinds[kind]).with("stored",
			func(q *alikeRequest) { q.primed = true }))
	}
	return list
}

// alikeBodies are requests with bodies, and with what none is made of.
func alikeBodies() (list []alikeRequest) {
	zero, five := rawField("content-length", "0"), rawField("content-length", "5")
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "PROPFIND",
		"X-OWN"} {
		late := func(q *alikeRequest) { q.late = true }
		body := func(q *alikeRequest) { q.body = "hello" }
		list = append(list, alikePlain(method, "fresh", 200), alikePlain(method, "fresh", 200, zero).with("length 0",
			func(*alikeRequest) {}),
			alikePlain(method, "fresh", 200).with("an end of its own", late), alikePlain(method, "fresh", 200,
				zero).with("length 0, an end of its own", late),
			alikePlain(method, "fresh", 200, five).with("a body", body), alikePlain(method, "fresh",
				200).with("a body of unknown length", body),
			alikePlain(method, "fresh", 200, five).with("a body, an end of its own",
				func(q *alikeRequest) { q.body, q.late = "hello", true }),
			alikePlain(method, "fresh", 400, zero).with("length 0 of 5 bytes",
				func(q *alikeRequest) { q.body, q.not1 = "hello", true }),
			alikePlain(method, "fresh", 400, five).with("length 5 of none",
				func(q *alikeRequest) { q.not1, q.cut = true, true }),
			alikePlain(method, "fresh", 400, five).with("length 5 of 3 bytes",
				func(q *alikeRequest) { q.body, q.not1, q.cut = "hel", true, true }),
			alikePlain(method, "fresh", 400, five).with("length 5 of 8 bytes",
				func(q *alikeRequest) { q.body, q.not1, q.cut = "hello, h", true, true }))
		for _, length := range [][]string{{""}, {"5, 5"}, {"abc"}, {"-1"}, {"+5"}, {"0x5"}, {"5 5"}, {"5", "6"},
			{"99999999999999999999"}} {
			q := alikePlain(method, "fresh", 400).with(fmt.Sprintf("length %q", length), body)
			for _, v := range length {
				q.fields = append(q.fields, rawField("content-length", v))
			}
			list = append(list, q)
		}
		list = append(list, alikePlain(method, "fresh", 200, five, five).with("length 5 twice", body))
	}
	for _, method := range []string{"GET", "HEAD"} {
		list = append(list, alikePlain(method, "fresh", 200).with("no end", func(q *alikeRequest) { q.open = true }),
			alikePlain(method, "etag", 200).with("no end, stored",
				func(q *alikeRequest) { q.open, q.primed = true, true }),
			alikePlain(method, "fresh", 200, zero).with("length 0, no end", func(q *alikeRequest) { q.open = true }))
	}
	return list
}

// alikeFieldsOf are requests with fields that change the answer, or what the origin sees.
func alikeFieldsOf() (list []alikeRequest) {
	for _, c := range []struct {
		method, kind string
		status       int
		name, value  string
		again        string // a second line
		primed       bool
	}{
		{"GET", "etag", 304, "if-none-match", `"1"`, "", true},
		{"HEAD", "etag", 304, "if-none-match", `W/"1"`, "", true},
		{"GET", "etag", 304, "if-none-match", "*", "", true},
		{"GET", "etag", 200, "if-none-match", `"2"`, "", true},
		{"GET", "etag", 304, "if-modified-since", "Mon, 02 Jan 2006 15:04:05 GMT", "", true},
		{"GET", "etag", 200, "if-match", `"1"`, "", true},
		{"GET", "etag", 200, "if-unmodified-since", "Mon, 02 Jan 2006 15:04:05 GMT", "", true},
		{"GET", "large", 206, "range", "bytes=5-9", "", true},
		{"GET", "large", 206, "range", "bytes=-9", "", true},
		{"HEAD", "large", 200, "range", "bytes=5-9", "", true},
		{"GET", "large", 416, "range", "bytes=60000-", "", true},
		{"GET", "large", 200, "range", "lines=1-2", "", true},
		{"GET", "fresh", 200, "cache-control", "no-cache", "", true},
		{"GET", "fresh", 200, "cache-control", "no-store", "", false},
		{"GET", "fresh", 504, "cache-control", "only-if-cached", "", false},
		{"HEAD", "fresh", 504, "cache-control", "only-if-cached", "", false},
		{"GET", "fresh", 200, "cache-control", "only-if-cached", "", true},
		{"GET", "fresh", 200, "pragma", "no-cache", "", true},
		{"GET", "fresh", 200, "authorization", "Bearer x", "", false},
		{"GET", "vary", 200, "accept-language", "fi, en;q=0.5", "sv", false},
		{"GET", "vary", 200, "accept-encoding", "br, gzip", "", false},
		{"POST", "private", 200, "accept-encoding", "br, gzip", "", false},
		{"GET", "private", 200, "cookie", "a=1; b=2", "", false},
		{"GET", "private", 200, "x-own", "", "", false},
		{"GET", "private", 200, "x-own", "one", "two", false},
		{"GET", "private", 200, "x-own", "\xc3\xa4\xff", "", false},
		{"GET", "private", 200, "x-own", "a\tb  c", "", false},
		{"GET", "private", 200, "te", "trailers", "", false},
		{"POST", "trailers", 200, "te", "trailers", "", false},
		{"GET", "private", 200, "x-forwarded-for", "192.0.2.1", "", false},
		{"GET", "private", 200, "x_own", "1", "", false},
		{"GET", "private", 200, "proxy-authorization", "Basic x", "", false},
		{"GET", "private", 200, "via", "1.1 other", "", false},
		{"GET", "private", 200, "expect", "100-continue", "", false},
		{"GET", "private", 417, "expect", "x", "", false},
		{"HEAD", "private", 417, "expect", "x", "", false},
		{"POST", "private", 417, "expect", "200-maybe", "", false},
		{"OPTIONS", "private", 204, "max-forwards", "0", "", false},
		{"OPTIONS", "private", 200, "max-forwards", "5", "", false},
		{"TRACE", "private", 200, "max-forwards", "0", "", false},
	} {
		q := alikePlain(c.method, c.kind, c.status, rawField(c.name, c.value))
		q.name, q.primed = fmt.Sprintf("%s, %s: %q %q", q.name, c.name, c.value, c.again), c.primed
		if c.again != "" {
			q.fields = append(q.fields, rawField(c.name, c.again))
		}
		list = append(list, q)
	}
	many := alikePlain("GET", "private", 431).with("many fields", func(*alikeRequest) {})
	for range front.MaxFields + 1 {
		many.fields = append(many.fields, rawField("x-own", "1"))
	}
	huge := alikePlain("GET", "private", 431).with("a huge field", func(q *alikeRequest) { q.bare = true })
	for range 20 {
		huge.fields = append(huge.fields, rawField("x-own", strings.Repeat("x", 4000)))
	}
	return append(list, many, huge)
}

// alikeTargets are requests for other hosts and targets.
func alikeTargets() (list []alikeRequest) {
	for _, c := range []struct {
		method, authority, target string
		status                    int
	}{
		{"GET", "WWW.Example", "/fresh/{p}", 200},
		{"GET", "www.example.", "/fresh/{p}", 200},
		{"GET", "www.example:443", "/fresh/{p}", 200},
		{"GET", "www.example:8443", "/fresh/{p}", 200},
		{"GET", "other.example", "/fresh/{p}", 421},
		{"GET", "[::1]", "/fresh/{p}", 421},
		{"GET", "www..example", "/fresh/{p}", 400},
		{"GET", "u:p@www.example", "/fresh/{p}", 400},
		{"GET", "www.example/x", "/fresh/{p}", 400},
		{"GET", "www.example:x", "/fresh/{p}", 400},
		{"GET", "", "/fresh/{p}", 400},
		{"GET", "www.example", "/fresh/{p}?a=1&b", 200},
		{"GET", "www.example", "/fresh/{p}?", 200},
		{"GET", "www.example", "/fresh/{p}/../x%2f%20|^", 200},
		{"GET", "www.example", "//fresh/{p}", 200},
		{"GET", "www.example", "/fresh/{p}#a", 400},
		{"GET", "www.example", "/fresh/{p} a", 400},
		{"GET", "www.example", "/fresh/{p}\x7f", 400},
		{"GET", "www.example", "fresh/{p}", 400},
		{"GET", "www.example", "*", 400},
		{"OPTIONS", "www.example", "*", 204},
		{"OPTIONS", "other.example", "*", 421},
		{"GET", "www.example", "/" + strings.Repeat("x", front.MaxURL) + "{p}", 414},
		{"GET", "www.example", admin.HealthPath, 200},
		{"HEAD", "www.example", admin.HealthPath, 200},
		{"GE T", "www.example", "/fresh/{p}", 400},
		{"get", "www.example", "/fresh/{p}", 200},
		{"PURGE", "www.example", "/fresh/{p}", 200},
	} {
		name := fmt.Sprintf("%s %.40q of %s", c.method, c.target, c.authority)
		list = append(list, alikeRequest{name: name, status: c.status,
			rawMessage: rawMessage{rawRequest: rawRequest{c.method, c.authority, c.target, nil}}})
	}
	return list
}

// alikeMalformed are requests that only frames can say, with what HTTP/1.1 has for it.
func alikeMalformed() (list []alikeRequest) {
	f := rawField
	method, scheme, authority, path := f(":method", "GET"), f(":scheme", "https"), f(":authority", "www.example"),
		f(":path", "/fresh/{p}{n}")
	list = append(list, alikeRequest{name: "CONNECT", status: 405,
		rawMessage: rawMessage{rawRequest: rawRequest{method: "CONNECT"},
			replaced: []hpack.HeaderField{f(":method", "CONNECT"), f(":authority", "www.example:443")},
			line:     "CONNECT www.example:443 HTTP/1.1\r\nHost: www.example:443\r\n"}})
	for _, c := range []struct {
		name   string
		status int
		line   string // over HTTP/1.1, "" if that has none
		fields []hpack.HeaderField
	}{
		{"Host alone", 200, "GET /fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\n",
			[]hpack.HeaderField{method, scheme, path, f("host", "www.example")}},
		{"Host as well", 200, "GET https://www.example/fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\n",
			[]hpack.HeaderField{method, scheme, authority, path, f("host", "www.example")}},
		{"Host in another case", 400, "",
			[]hpack.HeaderField{method, scheme, authority, path, f("host", "WWW.example")}},
		{"another Host", 400, "", []hpack.HeaderField{method, scheme, authority, path, f("host", "other.example")}},
		{"an empty Host", 400, "", []hpack.HeaderField{method, scheme, authority, path, f("host", "")}},
		{"Host twice", 400, "GET /fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\nHost: www.example\r\n",
			[]hpack.HeaderField{method, scheme, authority, path, f("host", "www.example"), f("host", "www.example")}},
		{"no host", 400, "GET /fresh/{p}{n} HTTP/1.1\r\n", []hpack.HeaderField{method, scheme, path}},
		{"an absolute :path", 400, "",
			[]hpack.HeaderField{method, scheme, authority, f(":path", "https://www.example/fresh/{p}{n}")}},
		{"an absolute :path of another host", 400, "",
			[]hpack.HeaderField{method, scheme, authority, f(":path", "https://other.example/fresh/{p}{n}")}},
		{"a :path with a scheme alone", 400, "GET https: HTTP/1.1\r\nHost: www.example\r\n",
			[]hpack.HeaderField{method, scheme, authority, f(":path", "https:")}},
		{"an empty :path", 400, "GET  HTTP/1.1\r\nHost: www.example\r\n",
			[]hpack.HeaderField{method, scheme, authority, f(":path", "")}},
		{"no :path", 400, "GET HTTP/1.1\r\nHost: www.example\r\n", []hpack.HeaderField{method, scheme, authority}},
		{":path twice", 400, "", []hpack.HeaderField{method, scheme, authority, path, path}},
		{"no :method", 400, "", []hpack.HeaderField{scheme, authority, path}},
		{"an empty :method", 400, " /fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\n",
			[]hpack.HeaderField{f(":method", ""), scheme, authority, path}},
		{"no :scheme", 400, "GET ://www.example/fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\n",
			[]hpack.HeaderField{method, authority, path}},
		{"an empty :scheme", 400, "", []hpack.HeaderField{method, f(":scheme", ""), authority, path}},
		{"a :scheme of another kind", 400, "GET ftp://www.example/fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\n",
			[]hpack.HeaderField{method, f(":scheme", "ftp"), authority, path}},
		{"a :scheme that is none", 400, "GET ht;tps://www.example/fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\n",
			[]hpack.HeaderField{method, f(":scheme", "ht;tps"), authority, path}},
		{"the :scheme http", 200, "GET http://www.example/fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\n",
			[]hpack.HeaderField{method, f(":scheme", "http"), authority, path}},
		{":scheme twice", 400, "", []hpack.HeaderField{method, scheme, scheme, authority, path}},
		{"a pseudo-header field after others", 400, "", []hpack.HeaderField{method, scheme, authority, f("x", "y"),
			path}},
		{"a pseudo-header field that is none", 400, "",
			[]hpack.HeaderField{method, scheme, authority, path, f(":x", "y")}},
		{"a pseudo-header field of responses", 400, "",
			[]hpack.HeaderField{method, scheme, authority, path, f(":status", "200")}},
		{":protocol", 400, "", []hpack.HeaderField{method, scheme, authority, path, f(":protocol", "websocket")}},
		{"a name in upper case", 400, "", []hpack.HeaderField{method, scheme, authority, path, f("X-Own", "y")}},
		{"a name that is none", 400, "GET /fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\nx y: z\r\n",
			[]hpack.HeaderField{method, scheme, authority, path, f("x y", "z")}},
		{"an empty name", 400, "GET /fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\n: z\r\n",
			[]hpack.HeaderField{method, scheme, authority, path, f("", "z")}},
		{"NUL in a value", 400, "GET /fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\nx: a\x00b\r\n",
			[]hpack.HeaderField{method, scheme, authority, path, f("x", "a\x00b")}},
		{"a line break in a value", 400, "", []hpack.HeaderField{method, scheme, authority, path, f("x", "a\nb")}},
		{"Connection", 400, "", []hpack.HeaderField{method, scheme, authority, path, f("connection", "close")}},
		{"Transfer-Encoding", 400, "",
			[]hpack.HeaderField{method, scheme, authority, path, f("transfer-encoding", "chunked")}},
		{"Upgrade", 400, "", []hpack.HeaderField{method, scheme, authority, path, f("upgrade", "h2c")}},
		{"Keep-Alive", 400, "", []hpack.HeaderField{method, scheme, authority, path, f("keep-alive", "timeout=5")}},
		{"Proxy-Connection", 400, "", []hpack.HeaderField{method, scheme, authority, path,
			f("proxy-connection", "close")}},
		{"TE: gzip", 400, "", []hpack.HeaderField{method, scheme, authority, path, f("te", "gzip")}},
		{"a cookie in crumbs", 200, "GET /fresh/{p}{n} HTTP/1.1\r\nHost: www.example\r\nCookie: a=1; b=2\r\n",
			[]hpack.HeaderField{method, scheme, authority, path, f("cookie", "a=1"), f("cookie", "b=2")}},
		{"spaces around a value", 200, "GET /private/{p}{n} HTTP/1.1\r\nHost: www.example\r\nx-own:   a b \r\n",
			[]hpack.HeaderField{method, scheme, authority, f(":path", "/private/{p}{n}"), f("x-own", "  a b ")}},
	} {
		list = append(list, alikeRequest{name: c.name, status: c.status, not1: c.line == "",
			rawMessage: rawMessage{rawRequest: rawRequest{method: "GET"}, replaced: c.fields, line: c.line}})
	}
	return list
}
