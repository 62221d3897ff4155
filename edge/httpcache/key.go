package httpcache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
)

// Key is what the store knows a response, or a part of one, by. It is the URI of its target; "#",
// which no target has, and what follows it tell variants and fragments of that URI from the
// response itself:
//
//	https://www.example.com/a?b
//	https://www.example.com/a?b#variant=0f3c…
//	https://www.example.com/a?b#variant=0f3c…#fragment=52a1…@8388608
//
// Two targets never have the same key, nor do two variants or fragments.
type Key string

const (
	variantMark  = "#variant="
	fragmentMark = "#fragment="
)

// KeyOf is the key of a target in parts, as Target.Origin and Target.RequestURI have them.
func KeyOf(origin, requestURI string) Key { return Key(origin + requestURI) }

// Variant is the key of the response that a request with these fields selects.
func (k Key) Variant(fields []VaryField) Key {
	h := sha256.New()
	for _, f := range fields {
		var present byte
		if f.Present {
			present = 1
		}
		b := appendText(appendText(nil, f.Name), f.Value)
		h.Write(append(b, present))
	}
	return k + variantMark + Key(hex.EncodeToString(h.Sum(nil)[:16]))
}

// Fragment is the key of the fragment of a response that begins at start. The validator is part of
// it, so that fragments of different representations are never taken for each other.
func (k Key) Fragment(validator string, start int64) Key {
	h := sha256.Sum256([]byte(validator))
	return k + fragmentMark + Key(hex.EncodeToString(h[:16])+"@"+strconv.FormatInt(start, 10))
}

// HasFragment reports whether a key is that of a fragment of the response with the key k.
func (k Key) HasFragment(fragment Key) bool {
	return strings.HasPrefix(string(fragment), string(k)+fragmentMark)
}

// appendText appends a text so that nothing that follows can be taken for a part of it.
func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
