package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// An object's data in the store is one of two records. A response is a line "status request-time response-time" (times in
// nanoseconds since 1970) and a line "Name: value" for each field. A list of variants, which stands under the key of a URI whose
// responses have Vary, is JSON.

var errRecord = errors.New("stored record is malformed")

func encodeResponse(s *httpcache.Stored) []byte {
	b := fmt.Appendf(nil, "%d %d %d\n", s.Status, s.RequestTime.UnixNano(), s.ResponseTime.UnixNano())
	for name, lines := range s.Header {
		for _, v := range lines {
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, v...)
			b = append(b, '\n')
		}
	}
	return b
}

func decodeResponse(b []byte) (*httpcache.Stored, error) {
	first, rest, _ := strings.Cut(string(b), "\n")
	var asked, answered int64
	s := &httpcache.Stored{Header: make(http.Header, strings.Count(rest, "\n"))}
	if _, err := fmt.Sscanf(first, "%d %d %d", &s.Status, &asked, &answered); err != nil {
		return nil, errRecord
	}
	s.RequestTime, s.ResponseTime = time.Unix(0, asked), time.Unix(0, answered)
	for rest != "" {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			return nil, errRecord
		}
		s.Header[name] = append(s.Header[name], value)
	}
	return s, nil
}

// isVariants tells the two records apart.
func isVariants(b []byte) bool { return len(b) > 0 && b[0] == '[' }

func encodeVariants(v []httpcache.Variant) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and times always marshal
	}
	return b
}

func decodeVariants(b []byte) ([]httpcache.Variant, error) {
	var v []httpcache.Variant
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, errRecord
	}
	return v, nil
}
