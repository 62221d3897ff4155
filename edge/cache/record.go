package cache

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
// A response is a line "status request-time response-time size", followed by a line "Name: value"
// for each field. The times are in nanoseconds since 1970. The size is -1 if the body is the body
// of the object. Otherwise only fragments of the body are stored, and size is the length of the
// representation: an empty line follows, then a line "start length key" for each fragment. The key
// of a fragment begins with the key of the response; the line omits that part.
//
// A list of variants is JSON. It is stored under the key of a URI whose responses have Vary. It has
// no keys, because these follow from the fields. The values are in base64, because they may not be
// UTF-8.
//
// Up to version 0.1.0, keys of variants and fragments had another form. Records with such keys are
// read as malformed, and so count as missing.

var errRecord = errors.New("stored record is malformed")

// response is a stored response without its body.
type response struct {
	*httpcache.Stored
	size      int64 // of the representation if that is stored in fragments, otherwise -1
	fragments []httpcache.Fragment
}

// encode writes the record of the response with a key.
func (r *response) encode(key httpcache.Key) []byte {
	b := make([]byte, 0, 512)
	for i, n := range [4]int64{int64(r.Status), r.RequestTime.UnixNano(), r.ResponseTime.UnixNano(), r.size} {
		b = append(strconv.AppendInt(b, n, 10), "   \n"[i])
	}
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
			b = fmt.Appendf(b, "%d %d %s\n", f.Start, f.Length, strings.TrimPrefix(string(f.Key), string(key)))
		}
	}
	return b
}

// decodeResponse reads the record of the response with a key.
func decodeResponse(key httpcache.Key, b []byte) (*response, error) {
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
	r := &response{Stored: &httpcache.Stored{Status: int(numbers[0]),
		Header: make(http.Header, strings.Count(rest, "\n"))}, size: numbers[3]}
	r.RequestTime, r.ResponseTime = time.Unix(0, numbers[1]), time.Unix(0, numbers[2])
	if first != "" {
		return nil, errRecord
	}
	values := make([]string, 0, strings.Count(rest, "\n")) // one array for all fields that have a single line
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
		if name == "Transfer-Encoding" {
			continue // versions up to 0.1.0 stored the origin's
		}
		if lines := r.Header[name]; lines != nil {
			r.Header[name] = append(lines, value)
			continue
		}
		values = append(values, value)
		r.Header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\n")
		var f httpcache.Fragment
		start, more, _ := strings.Cut(line, " ")
		length, fragmentKey, ok := strings.Cut(more, " ")
		if _, err := fmt.Sscan(start+" "+length, &f.Start, &f.Length); err != nil || !ok || f.Start < 0 ||
			f.Length <= 0 || f.Start > r.size-f.Length {
			return nil, errRecord
		}
		if strings.HasPrefix(fragmentKey, "#") {
			fragmentKey = string(key) + fragmentKey
		}
		if f.Key = httpcache.Key(fragmentKey); !key.HasFragment(f.Key) {
			return nil, errRecord
		}
		r.fragments = append(r.fragments, f)
	}
	return r, nil
}

// isVariants reports whether a record is a list of variants.
func isVariants(b []byte) bool { return len(b) > 0 && b[0] == '{' }

// variantRecord is the record of a list of variants.
type variantRecord struct {
	Variants []storedVariant `json:"variants"`
}

type storedVariant struct {
	Vary []storedField `json:"vary"`
	Date time.Time     `json:"date"`
	// Language is missing in lists of earlier versions, and without Content-Language.
	Language string `json:"language,omitempty"`
}

type storedField struct {
	Name    string `json:"name"`
	Value   []byte `json:"value"`
	Present bool   `json:"present"`
}

func encodeVariants(variants []httpcache.Variant) []byte {
	var r variantRecord
	for _, v := range variants {
		stored := storedVariant{Date: v.Date, Language: v.Language}
		for _, f := range v.Fields {
			stored.Vary = append(stored.Vary, storedField{f.Name, []byte(f.Value), f.Present})
		}
		r.Variants = append(r.Variants, stored)
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // texts and times always marshal
	}
	return b
}

// decodeVariants reads the variants of a URI.
func decodeVariants(uri httpcache.Key, b []byte) ([]httpcache.Variant, error) {
	var r variantRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, errRecord
	}
	var out []httpcache.Variant
	for _, stored := range r.Variants {
		if len(stored.Vary) == 0 {
			return nil, errRecord // without fields, it would match every request
		}
		v := httpcache.Variant{Date: stored.Date, Language: stored.Language}
		for _, f := range stored.Vary {
			v.Fields = append(v.Fields, httpcache.VaryField{Name: f.Name, Value: string(f.Value), Present: f.Present})
		}
		v.Key = uri.Variant(v.Fields)
		out = append(out, v)
	}
	return out, nil
}
