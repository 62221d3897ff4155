package http2

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestSmoke(t *testing.T) {
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Got", fmt.Sprint(len(b)))
		n := 5
		fmt.Sscanf(r.URL.Path, "/%d", &n)
		_, _ = io.WriteString(w, strings.Repeat("x", n))
	})
	c := s.client()
	for _, n := range []int{0, 1, 4096, 4097, 70000, 3 << 20} {
		resp, b := get(t, c, fmt.Sprintf("/%d", n))
		if len(b) != n || resp.ProtoMajor != 2 {
			t.Errorf("%d: got %d, %s", n, len(b), resp.Proto)
		}
		r, err := c.Post("https://example.com/3", "text/plain", strings.NewReader(strings.Repeat("y", n)))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.Header.Get("X-Got") != fmt.Sprint(n) {
			t.Errorf("upload %d: %s", n, r.Header.Get("X-Got"))
		}
	}
}
