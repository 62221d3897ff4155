package http2

import (
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// AppendField appends a field to the header block b. The field becomes an entry of HPACK's static
// table if it is one, else a literal without indexing (RFC 7541, 6.2.2), so that the bytes mean the
// same on every connection. Set-Cookie becomes a never-indexed literal (RFC 7541, 7.1.3). The name
// must be in lower case.
func AppendField(b []byte, name, value string) []byte {
	entry := staticNames[name]
	if entry.values != nil {
		if i := entry.values[value]; i > 0 {
			return append(b, 0x80|i)
		}
	}
	kind := byte(0)
	if name == "set-cookie" {
		kind = 0x10
	}
	b = appendInt(b, kind, 4, uint64(entry.index))
	if entry.index == 0 {
		b = appendString(b, name)
	}
	return appendString(b, value)
}

// AppendPlain is AppendField for values that change often. It neither searches the static table for
// the value nor uses the Huffman code.
func AppendPlain(b []byte, name string, value []byte) []byte {
	entry := staticNames[name]
	b = appendInt(b, 0, 4, uint64(entry.index))
	if entry.index == 0 {
		b = append(appendInt(b, 0, 7, uint64(len(name))), name...)
	}
	return append(appendInt(b, 0, 7, uint64(len(value))), value...)
}

// AppendStatus appends the pseudo-header field :status, which must begin a response's header block.
// The status has three digits.
func AppendStatus(b []byte, status int) []byte {
	if i := staticNames[":status"].values[statusText(status)]; i > 0 {
		return append(b, 0x80|i)
	}
	return append(b, 0x08, 3, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10)) // 8 is :status
}

func statusText(status int) string {
	switch status {
	case http.StatusOK:
		return "200"
	case http.StatusNoContent:
		return "204"
	case http.StatusPartialContent:
		return "206"
	case http.StatusNotModified:
		return "304"
	case http.StatusBadRequest:
		return "400"
	case http.StatusNotFound:
		return "404"
	case http.StatusInternalServerError:
		return "500"
	}
	return ""
}

// appendInt appends an integer with a prefix of n bits (RFC 7541, 5.1).
func appendInt(b []byte, first byte, n uint8, v uint64) []byte {
	limit := uint64(1)<<n - 1
	if v < limit {
		return append(b, first|byte(v))
	}
	b = append(b, first|byte(limit))
	for v -= limit; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// appendString appends a string, in the Huffman code if that is shorter (RFC 7541, 5.2).
func appendString(b []byte, s string) []byte {
	if n := hpack.HuffmanEncodeLength(s); n < uint64(len(s)) {
		return hpack.AppendHuffmanString(appendInt(b, 0x80, 7, n), s)
	}
	return append(appendInt(b, 0, 7, uint64(len(s))), s...)
}

// staticEntry is the place of a name in the static table (RFC 7541, appendix A).
type staticEntry struct {
	index  uint8
	values map[string]uint8 // of entries with a value; nil if there are none
}

// staticNames maps each name of the static table to its first entry.
var staticNames = func() map[string]staticEntry {
	m := map[string]staticEntry{}
	var index uint8
	decoder := hpack.NewDecoder(0, func(f hpack.HeaderField) {
		e, ok := m[f.Name]
		if !ok {
			e.index = index
		}
		if f.Value != "" {
			if e.values == nil {
				e.values = map[string]uint8{}
			}
			e.values[f.Value] = index
		}
		m[f.Name] = e
	})
	for index = 1; index <= 61; index++ {
		_, _ = decoder.Write([]byte{0x80 | index}) // the table has 61
	}
	return m
}()

// canonicalNames maps the usual field names of requests from lower case to canonical form.
var canonicalNames = func() map[string]string {
	m := map[string]string{}
	for _, name := range []string{"Cache-Control", "Cdn-Loop", "Content-Type", "Dnt", "If-None-Match", "Origin",
		"Pragma", "Priority", "Range", "Referer",
		"Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site",
		"Sec-Fetch-User", "Te",
		"Traceparent", "Trailer", "Upgrade-Insecure-Requests", "X-Forwarded-For", "X-Forwarded-Host",
		"X-Forwarded-Proto", "X-Requested-With"} {
		m[strings.ToLower(name)] = name
	}
	for name := range staticNames {
		if name[0] != ':' {
			m[name] = textproto.CanonicalMIMEHeaderKey(name)
		}
	}
	return m
}()

func canonical(name string) string {
	if c, ok := canonicalNames[name]; ok {
		return c
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// lowerNames maps the usual field names of responses from canonical form to lower case.
var lowerNames = func() map[string]string {
	m := map[string]string{}
	for lower, name := range canonicalNames {
		m[name] = lower
	}
	for _, name := range []string{"Alt-Svc", "Cache-Status", "X-Content-Type-Options", "X-Frame-Options",
		"Content-Security-Policy", "Cross-Origin-Resource-Policy"} {
		m[name] = strings.ToLower(name)
	}
	return m
}()

// lower returns a name in lower case, or "" if it is not ASCII.
func lower(name string) string {
	if l, ok := lowerNames[name]; ok {
		return l
	}
	for i := range len(name) {
		if name[i] >= 0x80 {
			return ""
		}
	}
	return strings.ToLower(name)
}

// isConnectionField reports whether a field is specific to HTTP/1.1 connections, which HTTP/2
// forbids (RFC 9113, 8.2.2). The name is in lower case.
func isConnectionField(name string) bool {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return true
	}
	return false
}
