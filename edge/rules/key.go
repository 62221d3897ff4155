package rules

import (
	"encoding/binary"
	"net/http"
)

// Key has a rule's settings for the key of stored responses. What is not part of the key isn't sent
// to the origin either. What is part of it makes a response of its own for each value.
type Key struct {
	Keep, Drop     []string // globs over names of query parameters; without Keep all are kept
	Header, Cookie []string // names of fields, in canonical form, and of cookies
}

// maxKeyValue is how many bytes a value may have that is part of a key.
const maxKeyValue = 256

// maxKeyLines is how many values one field or cookie may have that is part of a key.
const maxKeyLines = 8

// HasValues reports whether values of fields or cookies are part of the key.
func (k *Key) HasValues() bool { return k != nil && len(k.Header)+len(k.Cookie) > 0 }

// Append appends the values that a request has for the key, so that different values never give the
// same bytes. It reports false if a value is too long or there are too many: such a request can't
// be served from the store, because others would share its key.
func (k *Key) Append(b []byte, h http.Header) (_ []byte, ok bool) {
	add := func(values []string) bool {
		if len(values) > maxKeyLines {
			return false
		}
		b = binary.AppendUvarint(b, uint64(len(values)))
		for _, v := range values {
			if len(v) > maxKeyValue {
				return false
			}
			b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
		}
		return true
	}
	for _, name := range k.Header {
		if !add(h[name]) {
			return nil, false
		}
	}
	for _, name := range k.Cookie {
		if !add(cookies(h, name)) {
			return nil, false
		}
	}
	return b, true
}
