package httpcache

import (
	"errors"
	"net/http"
	"strconv"
)

// ErrLength means that the Content-Length of a request is malformed, contradicts itself or differs
// from the length of the body. The response is 400.
var ErrLength = errors.New("malformed Content-Length: want the number of the body's bytes, once")

// CheckLength returns ErrLength if the Content-Length of a request is invalid (RFC 9110, section
// 8.6; RFC 9113, section 8.1.1). Repeated equal values are valid. Go's HTTP/1.1 server rejects all
// invalid values itself, quic-go most of them, and Go's HTTP/2 server none.
func CheckLength(r *http.Request) error {
	lines := r.Header["Content-Length"]
	for i, line := range lines {
		n, err := strconv.ParseUint(line, 10, 63)
		if err != nil || line != lines[0] {
			return ErrLength
		}
		// An HTTP/2 stream that ends with its header.
		if i == 0 && r.ContentLength >= 0 && n != uint64(r.ContentLength) {
			return ErrLength
		}
	}
	return nil
}
