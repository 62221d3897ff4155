package httpcache

import (
	"errors"
	"net/http"
	"strconv"
)

// ErrLength is what is wrong with a request whose Content-Length is malformed, says two things, or
// is not that of its body. It is answered with 400.
var ErrLength = errors.New("malformed Content-Length: want the number of the body's bytes, once")

// CheckLength returns ErrLength if what a request says of its length can't be (RFC 9110, 8.6; RFC
// 9113, 8.1.1). A field that is there twice, and the same, says one thing. Go's servers of HTTP/1.1
// have refused all that already, quic-go most, and Go's of HTTP/2 nothing.
func CheckLength(r *http.Request) error {
	lines := r.Header["Content-Length"]
	for i, line := range lines {
		n, err := strconv.ParseUint(line, 10, 63)
		if err != nil || line != lines[0] {
			return ErrLength
		}
		if i == 0 && r.ContentLength >= 0 && n != uint64(r.ContentLength) { // of a stream of HTTP/2 that ends with the header block
			return ErrLength
		}
	}
	return nil
}
