package edge

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/storage"
)

// A response has so many fragments at most, and its record is small, however long its URL is.
func TestFragmentsAreBounded(t *testing.T) {
	e := newEdge(t, static("", "Cache-Control: max-age=1000"))
	key := httpcache.Key("http://www.example/" + strings.Repeat("x", 8000))
	s := &httpcache.Stored{Status: 200, Header: http.Header{"Etag": {`"1"`}}, RequestTime: time.Now(), ResponseTime: time.Now()}
	large := httpcache.Fragment{Range: httpcache.Range{Start: 1 << 30, Length: 1000}, Key: key.Fragment(`"1"`, 1<<30)}
	var got *entry
	for i := range int64(maxFragments + 10) {
		f := large
		if i > 0 {
			f = httpcache.Fragment{Range: httpcache.Range{Start: 10 * i, Length: 10}, Key: key.Fragment(`"1"`, 10*i)}
		}
		var err error
		if got, err = e.cache.addFragment(&born{uri: key}, s, f, 1<<40); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(got.fragments, f) || !slices.Contains(got.fragments, large) {
			t.Fatalf("%d: it or the large one went", i)
		}
	}
	if len(got.fragments) != maxFragments || len(got.object.Data()) > 100*maxFragments {
		t.Errorf("%d fragments in %d bytes", len(got.fragments), len(got.object.Data()))
	}
}

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
		{Range: httpcache.Range{Start: 0, Length: 10}, Key: httpcache.Key("http://a/").Fragment("x", 0)}, {Range: httpcache.Range{Start: 50, Length: 50}, Key: httpcache.Key("http://a/").Fragment("x", 50)}}}
	if got, err = decodeResponse("http://a/", parts.encode("http://a/")); err != nil || got.size != 100 || !reflect.DeepEqual(got.fragments, parts.fragments) ||
		!reflect.DeepEqual(got.Header, s.Header) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, parts)
	}
	old := strings.ReplaceAll(string(parts.encode("http://a/")), "#", "http://a/#") // as up to version 0.1.0
	if got, err = decodeResponse("http://a/", []byte(old)); err != nil || !reflect.DeepEqual(got.fragments, parts.fragments) {
		t.Errorf("an old record is read as %+v, %v", got, err)
	}
	if isVariants(whole.encode("http://a/")) {
		t.Error("a response looks like a list of variants")
	}
	for _, bad := range []string{"", "x", "200", "200 1\n", "200 1 2\n", "200 1 2 -1\nno colon\n", "200 1 2 9\n\n0 10 past-the-end\n", "200 1 2 9\n\n-1 3 k\n", "200 1 2 9\n\n1 k\n",
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

// What version 0.1.0 stored with keys of its form, which a crafted path could have as well, is
// fetched again. What it stored whole is used.
func TestOldStore(t *testing.T) {
	e := newEdge(t, static("new", "Cache-Control: max-age=1000"))
	origin := authorityOf("www.example")
	put := func(key, data, body string) {
		t.Helper()
		w := e.Store.Create(storage.Header{Key: key, URL: "www.example/"})
		defer w.Close()
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(nil, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now().UnixNano()
	const fields = "Cache-Control: max-age=1000\nTransfer-Encoding: chunked\n"
	put(origin+"/whole", fmt.Sprintf("200 %d %d -1\n%s", now, now, fields), "old")
	put(origin+"/vary", `[{"Key":"`+origin+`/vary 0123","Fields":[{"Name":"Accept","Value":"","Present":false}],"Date":"2026-01-02T15:04:05Z"}]`, "")
	put(origin+"/vary 0123", fmt.Sprintf("200 %d %d -1\n%s", now, now, fields), "planted")
	put(origin+"/parts", fmt.Sprintf("200 %d %d 7\n%s\n0 7 %s", now, now, fields, origin+"/parts 0123@0\n"), "")
	put(origin+"/parts 0123@0", "", "planted")
	for range 2 {
		a := e.get("/whole")
		a.wants(t, 200, "old")
		if !a.isHit() || a.header["Transfer-Encoding"] != nil {
			t.Errorf("what was stored whole: %v", a.header)
		}
	}
	for _, path := range []string{"/vary", "/parts"} {
		e.get(path).wants(t, 200, "new")
		if a := e.get(path); !a.isHit() || a.body != "new" {
			t.Errorf("%s afterwards: %+v", path, a)
		}
	}
}
