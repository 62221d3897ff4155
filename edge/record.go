package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// An object's data in the store is one of two records.
//
// A response is a line "status request-time response-time size" and a line "Name: value" for each field. The times are in nanoseconds
// since 1970. The size is -1 for a response whose body is the object's. Otherwise it is the length of a representation of which only
// fragments are stored: after an empty line there is a line "start length key" for each, and the body is empty.
//
// A list of variants, which stands under the key of a URI whose responses have Vary, is JSON.

var errRecord = errors.New("stored record is malformed")

// response is a stored response, or what is known of one that is stored in fragments.
type response struct {
	*httpcache.Stored
	size      int64 // of the representation if that is in fragments, else -1
	fragments []httpcache.Fragment
}

func (r *response) encode() []byte {
	b := fmt.Appendf(nil, "%d %d %d %d\n", r.Status, r.RequestTime.UnixNano(), r.ResponseTime.UnixNano(), r.size)
	for name, lines := range r.Header {
		for _, v := range lines {
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, v...)
			b = append(b, '\n')
		}
	}
	if r.size >= 0 {
		b = append(b, '\n')
		for _, f := range r.fragments {
			b = fmt.Appendf(b, "%d %d %s\n", f.Start, f.Length, f.Key)
		}
	}
	return b
}

func decodeResponse(b []byte) (*response, error) {
	first, rest, _ := strings.Cut(string(b), "\n")
	var numbers [4]int64
	for i := range numbers {
		var n string
		n, first, _ = strings.Cut(first, " ")
		var err error
		if numbers[i], err = strconv.ParseInt(n, 10, 64); err != nil {
			return nil, errRecord
		}
	}
	r := &response{Stored: &httpcache.Stored{Status: int(numbers[0]), Header: make(http.Header, strings.Count(rest, "\n"))}, size: numbers[3]}
	r.RequestTime, r.ResponseTime = time.Unix(0, numbers[1]), time.Unix(0, numbers[2])
	if first != "" {
		return nil, errRecord
	}
	values := make([]string, 0, strings.Count(rest, "\n")) // of fields that have one line each, as most have
	var line string
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\n")
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			return nil, errRecord
		}
		if have := r.Header[name]; have != nil {
			r.Header[name] = append(have, value)
			continue
		}
		values = append(values, value)
		r.Header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\n")
		var f httpcache.Fragment
		start, more, _ := strings.Cut(line, " ")
		length, key, ok := strings.Cut(more, " ")
		if _, err := fmt.Sscan(start+" "+length, &f.Start, &f.Length); err != nil || !ok || f.Start < 0 || f.Length <= 0 || f.Start > r.size-f.Length {
			return nil, errRecord
		}
		f.Key = key
		r.fragments = append(r.fragments, f)
	}
	return r, nil
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
