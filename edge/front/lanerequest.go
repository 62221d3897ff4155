package front

import (
	"bytes"
	"net/http"
	"strings"
)

// The lane takes requests of this grammar (RFC 9112) that arrive in one piece, and no others:
//
//	request = ( "GET" / "HEAD" ) SP target SP "HTTP/1.1" CRLF *( field CRLF ) CRLF
//	target  = "/" *( unreserved / sub-delims / ":" / "@" / "/" / "?" / "%" HEXDIG HEXDIG )
//	field   = token ":" *( SP / HTAB ) *( SP / HTAB / VCHAR / obs-text )
//
// The second character of the target is not "/", "." or "%": it could begin an authority, a path of
// the edge itself, or either of them encoded. There is exactly one Host field, of letters, digits,
// "-", "." and ":". A Connection field must be keep-alive. Of the fields that change a response,
// the lane takes conditions and one Range; see fieldUse.

// Kind is what can be done with the bytes that the lane has read.
type Kind int

const (
	ForLane Kind = iota // a request that may be answered here
	Whole               // a whole request without a body, for net/http
	Raw                 // anything else, for net/http: incomplete, malformed, with a body
)

// maxLaneFields is how many fields a request for the lane may have. Browsers send about 20.
const maxLaneFields = 40

// Request is a request for the lane. Its slices point into the bytes that it was read from.
type Request struct {
	Head         bool // the method is HEAD
	Target, Host []byte
	Conditional  bool   // it has If-None-Match or If-Modified-Since
	Range        []byte // the value of the Range field; nil if there is none
	oneCookie    bool   // CopyTo joins Cookie lines, which HTTP/2 may split (RFC 9113, 8.2.3)
	fields       [maxLaneFields]laneField
	count        int
}

type laneField struct{ name, value []byte }

// Read reads the request at the beginning of b. It returns the length of the request in bytes, if
// the request is complete.
func (q *Request) Read(b []byte) (int, Kind) {
	*q = Request{}
	var i int
	switch {
	case bytes.HasPrefix(b, []byte("GET /")):
		i = 4
	case bytes.HasPrefix(b, []byte("HEAD /")):
		q.Head, i = true, 5
	default:
		return 0, Raw
	}
	kind := ForLane
	n := targetLength(b[i:])
	q.Target = b[i : i+n]
	if i += n; n > MaxURL || n > 1 && (q.Target[1] == '/' || q.Target[1] == '.' || q.Target[1] == '%') {
		kind = Whole
	}
	const version = " HTTP/1.1\r\n"
	if !bytes.HasPrefix(b[i:], []byte(version)) {
		return 0, Raw
	}
	for i += len(version); ; {
		if bytes.HasPrefix(b[i:], []byte("\r\n")) {
			break
		}
		name, value, n := readField(b[i:])
		if n == 0 {
			return 0, Raw
		}
		i += n
		switch useOf(name) {
		case useHost:
			if q.Host != nil || !isPlainHost(value) {
				return 0, Raw
			}
			q.Host = value
			continue
		case useConnection:
			if !bytes.EqualFold(value, []byte("keep-alive")) {
				return 0, Raw
			}
		case useBody:
			return 0, Raw
		case useOther:
			kind = Whole
		case useCondition:
			q.Conditional = true
		case useRange:
			if q.Range != nil || len(value) == 0 {
				kind = Whole
			}
			q.Range = value
		}
		if q.count == len(q.fields) {
			kind = Whole
			continue
		}
		q.fields[q.count] = laneField{name, value}
		q.count++
	}
	if q.Host == nil {
		return 0, Raw
	}
	return i + 2, kind
}

// targetLength returns the length in bytes of the target at the beginning of b.
func targetLength(b []byte) int {
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '%' && i+2 < len(b) && isHex(b[i+1]) && isHex(b[i+2]) {
			i += 2
		} else if c >= 0x80 || asciiClass[c]&inTarget == 0 {
			return i
		}
	}
	return len(b)
}

// readField reads the field line at the beginning of b. It returns the length of the line in bytes
// with its line end, or 0 if there is no valid field line.
func readField(b []byte) (name, value []byte, n int) {
	i := 0
	for i < len(b) && b[i] < 0x80 && asciiClass[b[i]]&inToken != 0 {
		i++
	}
	if i == 0 || i == len(b) || b[i] != ':' {
		return nil, nil, 0
	}
	name = b[:i]
	for i++; i < len(b) && (b[i] == ' ' || b[i] == '\t'); i++ {
	}
	from := i
	for i < len(b) && (b[i] >= ' ' && b[i] != 0x7f || b[i] == '\t') {
		i++
	}
	if !bytes.HasPrefix(b[i:], []byte("\r\n")) {
		return nil, nil, 0
	}
	return name, bytes.TrimRight(b[from:i], " \t"), i + 2
}

// fieldUse is the effect of a request field on the response.
type fieldUse int

const (
	useNone       fieldUse = iota // none, unless the response varies by it
	useHost                       // names the site
	useConnection                 // may end the connection
	useCondition                  // the response may be a 304
	useRange                      // the response may be a 206
	useOther                      // changes the response in ways that the lane doesn't know
	useBody                       // there may be a body, or a switch to another protocol
)

// useOf returns the use of a field. It knows all fields that the ordinary path looks at when it
// answers from the store.
func useOf(name []byte) fieldUse {
	var lower [20]byte
	if len(name) > len(lower) {
		return useNone
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		lower[i] = c
	}
	switch string(lower[:len(name)]) {
	case "host":
		return useHost
	case "connection":
		return useConnection
	case "if-none-match", "if-modified-since":
		return useCondition
	case "range":
		return useRange
	case "cache-control", "pragma", "if-range", "if-match", "if-unmodified-since", "cdn-loop", "authorization", "via",
		"max-forwards", "kaiku-purges", "te":
		return useOther
	case "content-length", "transfer-encoding", "trailer", "upgrade", "expect", "proxy-connection", "keep-alive",
		"http2-settings":
		return useBody
	}
	return useNone
}

// isPlainHost reports whether a Host has a form that all parsers read alike.
func isPlainHost(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 || asciiClass[c]&inHost == 0 {
			return false
		}
	}
	return len(b) > 0
}

func isHex(c byte) bool { return c < 0x80 && asciiClass[c]&inHex != 0 }

// Classes of characters.
const (
	inToken  = 1 << iota // tchar (RFC 9110, 5.6.2)
	inTarget             // in a target, unencoded
	inHost               // in a Host
	inHex                // hexadecimal digit
)

// asciiClass holds the classes of each ASCII character.
var asciiClass = func() (class [128]uint8) {
	set := func(chars string, c uint8) {
		for i := range len(chars) {
			class[chars[i]] |= c
		}
	}
	const digits, upper, lower = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
	set(digits+upper+lower, inToken|inTarget)
	set("!#$%&'*+-.^_`|~", inToken)
	set("-._~"+"!$&'()*+,;="+":@/?", inTarget)
	set(digits+upper+lower+"-.:", inHost)
	set(digits+"abcdefABCDEF", inHex)
	return class
}()

// CopyTo copies the lines of a field to h. The name is in canonical form.
func (q *Request) CopyTo(h http.Header, name string) {
	if h[name] != nil {
		return
	}
	for _, f := range q.fields[:q.count] {
		if len(f.name) == len(name) && bytes.EqualFold(f.name, []byte(name)) {
			h[name] = append(h[name], string(f.value))
		}
	}
	if lines := h[name]; q.oneCookie && name == "Cookie" && len(lines) > 1 {
		h[name] = []string{strings.Join(lines, "; ")}
	}
}

// Lines returns the value of a field's first line, and the number of its lines. The name may be in
// any form.
func (q *Request) Lines(name string) (first []byte, lines int) {
	for _, f := range q.fields[:q.count] {
		if len(f.name) == len(name) && bytes.EqualFold(f.name, []byte(name)) {
			if lines++; lines == 1 {
				first = f.value
			}
		}
	}
	return first, lines
}

// first returns the value of the first line of a field. The name may be in any form.
func (q *Request) first(name string) string {
	for _, f := range q.fields[:q.count] {
		if len(f.name) == len(name) && bytes.EqualFold(f.name, []byte(name)) {
			return string(f.value)
		}
	}
	return ""
}
