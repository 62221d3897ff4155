package edge

import (
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

func TestNotesAreForgotten(t *testing.T) {
	var n notes
	now := time.Unix(1_000_000, 0)
	n.set("a", "why", now)
	for _, w := range []struct {
		key   string
		after time.Duration
		want  string
	}{{"a", 0, "why"}, {"b", 0, ""}, {"a", noteTime, "why"}, {"a", noteTime + 1, ""}, {"a", 0, ""}} {
		if got := n.get(w.key, now.Add(w.after)); got != w.want {
			t.Errorf("%s after %v: %q, want %q", w.key, w.after, got, w.want)
		}
	}
	n.set("a", "why", now)
	n.set("a", "", now)
	if n.get("a", now) != "" {
		t.Error("what was taken back is still remembered")
	}
	for i := range maxNotes + 100 {
		n.set(strconv.Itoa(i), "why", now)
	}
	if got := len(n.m); got > maxNotes {
		t.Errorf("%d keys are remembered, want at most %d", got, maxNotes)
	}
}

func TestTagsOf(t *testing.T) {
	h := http.Header{"Surrogate-Key": {"a  b", " c "}, "Cache-Tag": {"d e,f", " ,g,"}, "Cache-Groups": {`"h", "i j"`}}
	if got, want := tagsOf(h, &Site{Hosts: []string{"www.example"}}, "www.example", "https://www.example"), []string{"\x00host www.example", "a", "b", "c", "d e", "f", "g",
		"\x00group https://www.example h", "\x00group https://www.example i j"}; !slices.Equal(got, want) {
		t.Errorf("tags are %q, want %q", got, want)
	}
}

func TestRecords(t *testing.T) {
	asked := time.Unix(1_700_000_000, 123456789)
	s := &httpcache.Stored{Status: 404, RequestTime: asked, ResponseTime: asked.Add(time.Second),
		Header: http.Header{"Etag": {`"a: b"`}, "X-Multi": {"1", "2", ""}, "X-Empty": {""}, "X-Latin": {"\xe4"}}}
	whole := response{Stored: s, size: -1}
	got, err := decodeResponse(whole.encode())
	if err != nil || got.Status != s.Status || !reflect.DeepEqual(got.Header, s.Header) ||
		!got.RequestTime.Equal(s.RequestTime) || !got.ResponseTime.Equal(s.ResponseTime) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, s)
	}
	parts := response{Stored: s, size: 100, fragments: []httpcache.Fragment{
		{Range: httpcache.Range{Start: 0, Length: 10}, Key: "http://a/ b@0"}, {Range: httpcache.Range{Start: 50, Length: 50}, Key: "k"}}}
	if got, err = decodeResponse(parts.encode()); err != nil || got.size != 100 || !reflect.DeepEqual(got.fragments, parts.fragments) ||
		!reflect.DeepEqual(got.Header, s.Header) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, parts)
	}
	if isVariants(whole.encode()) {
		t.Error("a response looks like a list of variants")
	}
	for _, bad := range []string{"", "x", "200", "200 1\n", "200 1 2\n", "200 1 2 -1\nno colon\n", "200 1 2 9\n\n0 10 past-the-end\n", "200 1 2 9\n\n-1 3 k\n", "200 1 2 9\n\n1 k\n"} {
		if s, err := decodeResponse([]byte(bad)); err == nil {
			t.Errorf("%q is read as %+v", bad, s)
		}
	}

	v := []httpcache.Variant{{Key: "k", Fields: []httpcache.VaryField{{Name: "Accept", Value: "a", Present: true}}, Date: asked.UTC()}}
	b := encodeVariants(v)
	again, err := decodeVariants(b)
	if err != nil || !isVariants(b) || !reflect.DeepEqual(again, v) {
		t.Errorf("got %+v, %v", again, err)
	}
	if _, err := decodeVariants(b[:len(b)-1]); err == nil {
		t.Error("a list that was cut short is read")
	}
}

func TestVariantKey(t *testing.T) {
	fields := func(value string, present bool) []httpcache.VaryField {
		return []httpcache.VaryField{{Name: "Accept", Value: value, Present: present}, {Name: "Cookie"}}
	}
	seen := map[string]bool{}
	for _, k := range []string{
		variantKey("http://a/", fields("x", true)), variantKey("http://a/", fields("y", true)), variantKey("http://a/", fields("", true)),
		variantKey("http://a/", fields("", false)), variantKey("http://b/", fields("x", true)), variantKey("http://a/", fields("x", true)[:1]),
	} {
		if seen[k] {
			t.Errorf("two variants have the key %s", k)
		}
		seen[k] = true
	}
	if a, b := variantKey("k", fields("x", true)), variantKey("k", fields("x", true)); a != b {
		t.Error("one variant has two keys")
	}
}
