package cache

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

func TestRecords(t *testing.T) {
	asked := time.Unix(1_700_000_000, 123456789)
	s := &httpcache.Stored{Status: 404, RequestTime: asked, ResponseTime: asked.Add(time.Second),
		Header: http.Header{"Etag": {`"a: b"`}, "X-Multi": {"1", "2", ""}, "X-Empty": {""}, "X-Latin": {"\xe4"}}}
	whole := response{Stored: s, size: -1}
	got, err := decodeResponse("http://a/", whole.encode("http://a/"))
	if err != nil || got.Status != s.Status || !reflect.DeepEqual(got.Header, s.Header) ||
		!got.RequestTime.Equal(s.RequestTime) || !got.ResponseTime.Equal(s.ResponseTime) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, s)
	}
	parts := response{Stored: s, size: 100, fragments: []httpcache.Fragment{
		{Range: httpcache.Range{Start: 0, Length: 10}, Key: httpcache.Key("http://a/").Fragment("x", 0)},
		{Range: httpcache.Range{Start: 50, Length: 50}, Key: httpcache.Key("http://a/").Fragment("x", 50)}}}
	if got, err = decodeResponse("http://a/", parts.encode("http://a/")); err != nil || got.size != 100 ||
		!reflect.DeepEqual(got.fragments, parts.fragments) ||
		!reflect.DeepEqual(got.Header, s.Header) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, parts)
	}
	old := strings.ReplaceAll(string(parts.encode("http://a/")), "#", "http://a/#") // as up to version 0.1.0
	if got, err = decodeResponse("http://a/", []byte(old)); err != nil ||
		!reflect.DeepEqual(got.fragments, parts.fragments) {
		t.Errorf("an old record is read as %+v, %v", got, err)
	}
	if isVariants(whole.encode("http://a/")) {
		t.Error("a response looks like a list of variants")
	}
	for _, bad := range []string{"", "x", "200", "200 1\n", "200 1 2\n", "200 1 2 -1\nno colon\n",
		"200 1 2 9\n\n0 10 past-the-end\n", "200 1 2 9\n\n-1 3 k\n", "200 1 2 9\n\n1 k\n",
		"200 1 2 9\n\n0 9 http://a/ 0123456789abcdef@0\n", "200 1 2 9\n\n0 9 http://b/#fragment=x@0\n"} {
		if s, err := decodeResponse("http://a/", []byte(bad)); err == nil {
			t.Errorf("%q is read as %+v", bad, s)
		}
	}

	fields := []httpcache.VaryField{{Name: "Accept", Value: "\xe4", Present: true}}
	v := []httpcache.Variant{{Key: httpcache.Key("http://a/\xff").Variant(fields), Fields: fields, Date: asked.UTC()}}
	b := encodeVariants(v)
	again, err := decodeVariants("http://a/\xff", b)
	if err != nil || !isVariants(b) || !reflect.DeepEqual(again, v) {
		t.Errorf("got %+v, %v", again, err)
	}
	for _, bad := range []string{string(b[:len(b)-1]), `{"variants":[{"vary":[],"date":"2026-01-02T15:04:05Z"}]}`} {
		if v, err := decodeVariants("http://a/", []byte(bad)); err == nil {
			t.Errorf("%q is read as %+v", bad, v)
		}
	}
	// As version 0.1.0 had it: a key in it may be of another URI.
	if old := []byte(`[{"Key":"http://a/ 0123","Fields":[{"Name":"Accept","Value":"a","Present":true}],"Date":"2026-01-02T15:04:05Z"}]`); isVariants(old) {
		t.Error("an old list of variants is taken")
	} else if s, err := decodeResponse("http://a/", old); err == nil {
		t.Errorf("it is read as %+v", s)
	}
}
