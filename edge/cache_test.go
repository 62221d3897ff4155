package edge

import (
	"fmt"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/storage"
)

// What version 0.1.0 stored with keys of its form, which a crafted path could have as well, is
// fetched again. What it stored whole is used.
func TestOldStore(t *testing.T) { overProtocols(t, testOldStore) }

func testOldStore(t *testing.T, p protocol) {
	e := p.newEdge(t, static("new", "Cache-Control: max-age=1000"))
	origin := p.scheme() + "://www.example"
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
	put(origin+"/vary", `[{"Key":"`+origin+
		`/vary 0123","Fields":[{"Name":"Accept","Value":"","Present":false}],"Date":"2026-01-02T15:04:05Z"}]`, "")
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
