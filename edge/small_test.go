package edge

import (
	"io"
	"net/http"
	"testing"
)

// TestSmallBodyThatTakesLong has an origin that sends a small body in parts: clients get what there
// is, and one that joins gets all of it.
func TestSmallBodyThatTakesLong(t *testing.T) { overProtocols(t, testSmallBodyThatTakesLong) }

func testSmallBodyThatTakesLong(t *testing.T, p protocol) {
	more := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		w.Header().Set("Content-Length", "9")
		_ = http.NewResponseController(w).Flush() // the header block alone
		<-more
		_, _ = io.WriteString(w, "one")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "twoend")
	})
	first, err := e.client.Do(e.request("GET", "/a", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Body.Close()
	more <- struct{}{}
	begin := make([]byte, 3)
	if _, err := io.ReadFull(first.Body, begin); err != nil || string(begin) != "one" {
		t.Fatalf("the body begins with %q, %v", begin, err)
	}
	second := make(chan answer, 1)
	resp, err := e.client.Do(e.request("GET", "/a", ""))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		second <- answer{resp.StatusCode, resp.Header, string(body), err}
	}()
	more <- struct{}{}
	if rest, err := io.ReadAll(first.Body); err != nil || string(rest) != "twoend" {
		t.Errorf("the body ends with %q, %v", rest, err)
	}
	(<-second).wants(t, 200, "onetwoend")
	got := e.get("/a")
	got.wants(t, 200, "onetwoend")
	if !got.isHit() {
		t.Error("the body was not stored")
	}
	e.wantHits(1)
}
