package front

import (
	"bytes"
	"net/http"
)

// The lane takes requests of this grammar (RFC 9112), in one piece, and no others:
//
//	request = ( "GET" / "HEAD" ) SP target SP "HTTP/1.1" CRLF *( field CRLF ) CRLF
//	target  = "/" *( unreserved / sub-delims / ":" / "@" / "/" / "?" / "%" HEXDIG HEXDIG )
//	field   = token ":" *( SP / HTAB ) *( SP / HTAB / VCHAR / obs-text )
//
// The target does not go on with "/", "." or "%", which may be an authority, the edge's own paths,
// or either of them encoded. There is one Host field, of letters, digits, "-", "." and ":". A
// Connection field says keep-alive. Of the fields that say how a request is to be answered there is
// none but those of conditions, and one Range; see fieldUse.

// Kind is what the lane can do with the bytes that it has.
type Kind int

const (
	ForLane Kind = iota // a request that may be answered here
	Whole               // a whole request without a body, for net/http
	Raw                 // anything else, for net/http: incomplete, malformed, with a body
)

// maxLaneFields bounds the fields of a request for the lane. Browsers send about 20.
const maxLaneFields = 40

// Request is a request for the lane. It refers to the bytes that it was read from.
type Request struct {
	Head         bool // the method is HEAD
	Target, Host []byte
	Conditional  bool   // it has If-None-Match or If-Modified-Since
	Range        []byte // the Range field; nil without
	fields       [maxLaneFields]laneField
	count        int
}

type laneField struct{ name, value []byte }

// Read reads the request that b begins with, and returns its length in bytes if it is whole.
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

// targetLength is how many bytes of b are of a target.
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

// readField reads the field line that b begins with, and returns its length in bytes with the end
// of the line; 0 if it is none.
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

// fieldUse is what a field is to the answer.
type fieldUse int

const (
	useNone       fieldUse = iota // nothing, unless the response varies by it
	useHost                       // names the site
	useConnection                 // may end the connection
	useCondition                  // the answer may be 304
	useRange                      // the answer may be a part
	useOther                      // changes the answer in ways that the lane does not know
	useBody                       // there may be a body, or another protocol comes
)

// useOf looks at all fields that the ordinary path looks at in a request that it answers from the
// store.
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

// isPlainHost reports whether a Host is of a form that nobody reads in two ways.
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
	inTarget             // of a target, but for what is encoded
	inHost
	inHex
)

// asciiClass has the classes of each ASCII character.
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

// CopyTo copies the lines of a field, whose name is in canonical form.
func (q *Request) CopyTo(h http.Header, name string) {
	if h[name] != nil {
		return
	}
	for _, f := range q.fields[:q.count] {
		if len(f.name) == len(name) && bytes.EqualFold(f.name, []byte(name)) {
			h[name] = append(h[name], string(f.value))
		}
	}
}

// first is the first line of a field, whose name is in any form.
func (q *Request) first(name string) string {
	for _, f := range q.fields[:q.count] {
		if len(f.name) == len(name) && bytes.EqualFold(f.name, []byte(name)) {
			return string(f.value)
		}
	}
	return ""
}
