package httpcache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
)

// Key identifies a response, or a fragment of one, in the store. It is the URI of the target,
// followed by a suffix for a variant, a fragment or a content coding. A suffix begins with "#",
// which no target contains:
//
//	https://www.example.com/a?b
//	https://www.example.com/a?b#variant=0f3c…
//	https://www.example.com/a?b#variant=0f3c…#fragment=52a1…@8388608
//	https://www.example.com/a?b#coding=br
//
// Different targets, variants, fragments and codings have different keys.
type Key string

const (
	variantMark  = "#variant="
	fragmentMark = "#fragment="
	codingMark   = "#coding="
	withMark     = "#with="
)

// KeyOf returns the key of a target from the results of Target.Origin and Target.RequestURI.
func KeyOf(origin, requestURI string) Key { return Key(origin + requestURI) }

// With returns the key of the responses for requests that have more than the target in common, of
// which mark is a hash. "" means that they have not.
func (k Key) With(mark string) Key {
	if mark == "" {
		return k
	}
	return k + withMark + Key(mark)
}

// Variant returns the key of the variant that a request with these fields selects.
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

// Fragment returns the key of the fragment that begins at start. The key depends on the validator,
// so that fragments of different representations are never mixed.
func (k Key) Fragment(validator string, start int64) Key {
	h := sha256.Sum256([]byte(validator))
	return k + fragmentMark + Key(hex.EncodeToString(h[:16])+"@"+strconv.FormatInt(start, 10))
}

// Coding returns the key of the body of a response, coded with a content coding by the edge.
func (k Key) Coding(coding string) Key { return k + codingMark + Key(coding) }

// HasFragment reports whether fragment is the key of a fragment of the response with key k.
func (k Key) HasFragment(fragment Key) bool {
	return strings.HasPrefix(string(fragment), string(k)+fragmentMark)
}

// appendText appends s with its length, so that what follows can't be mistaken for a part of it.
func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
