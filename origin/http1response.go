package origin

import (
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// This file reads the responses that most servers send. net/http reads all others.

// maxLengthDigits is how many digits the length of a body has at most, so that it fits in an int64.
const maxLengthDigits = 18

// readPlain reads the header of a response to a GET or to a request with a body, if it is plain:
// all of it has arrived, its version is HTTP/1.1, it has one Content-Length and a body, and no
// field with a special meaning for the connection. Otherwise it reads nothing and returns nil. It
// reads as net/http does (FuzzResponse), and allocates less: one text has all fields.
func (x *http1Exchange) readPlain() *http.Response {
	const version = "HTTP/1.1 "
	in := x.c.in
	b, _ := in.Peek(in.Buffered()) // it has all of them
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 || x.r.Method == http.MethodHead || !bytes.HasPrefix(b, []byte(version)) {
		return nil
	}
	line, rest, _ := strings.Cut(string(b[:end+2]), "\r\n")
	status := line[len(version):]
	code := plainStatus(status)
	if code == 0 {
		return nil
	}
	h, length := plainFields(rest)
	if h == nil {
		return nil
	}
	_, _ = in.Discard(end + 4)
	x.left = length
	x.response = http.Response{Status: status, StatusCode: code, Proto: version[:len(version)-1], ProtoMajor: 1,
		ProtoMinor: 1, Header: h, ContentLength: length, Body: x, Request: x.r}
	if length == 0 {
		x.response.Body = http.NoBody
	}
	return &x.response
}

// plainStatus returns the code of a status, such as "200 OK". It returns 0 if the response is not
// plain: it is interim, or has no body whatever its fields say.
func plainStatus(status string) int {
	if len(status) < 4 || status[3] != ' ' || !isPlain(status) {
		return 0
	}
	code := 0
	for _, c := range []byte(status[:3]) {
		if c < '0' || c > '9' {
			return 0
		}
		code = 10*code + int(c-'0')
	}
	if code < 200 || code == http.StatusNoContent || code == http.StatusNotModified {
		return 0
	}
	return code
}

// plainFields returns the fields of a response and the length of its body, or nil if the response
// is not plain. Each line ends with CRLF.
func plainFields(lines string) (h http.Header, length int64) {
	n := strings.Count(lines, "\n")
	h, length = make(http.Header, n), -1
	values := make([]string, n)
	for i := range values {
		var line string
		line, lines, _ = strings.Cut(lines, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !isPlain(value) {
			return nil, 0
		}
		switch name = textproto.CanonicalMIMEHeaderKey(name); name {
		case "Content-Length":
			if length >= 0 || len(value) > maxLengthDigits {
				return nil, 0
			}
			size, err := strconv.ParseUint(value, 10, 63)
			if err != nil {
				return nil, 0
			}
			length = int64(size)
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return nil, 0
			}
		case "Pragma", "Trailer", "Transfer-Encoding":
			return nil, 0
		}
		if before := h[name]; before != nil {
			h[name] = append(before, value)
			continue
		}
		values[i] = value
		h[name] = values[i : i+1 : i+1]
	}
	if length < 0 {
		return nil, 0
	}
	return h, length
}

// isPlain reports whether a text has no control characters.
func isPlain(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] == 0x7f {
			return false
		}
	}
	return true
}

// readBody reads the body of a response.
func (x *http1Exchange) readBody(b []byte) (int, error) {
	if x.body != nil {
		return x.body.Read(b)
	}
	n, err := x.c.in.Read(b[:min(int64(len(b)), x.left)])
	x.left -= int64(n)
	switch {
	case x.left == 0:
		err = io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
