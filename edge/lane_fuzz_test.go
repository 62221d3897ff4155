package edge

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/front"
)

// What the lane takes for a whole request is one for net/http too, the same, and has no body.
func FuzzLaneRequest(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		f.Add(laneRequest(r))
	}
	f.Add([]byte("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var q front.Request
		n, kind := q.Read(b)
		if kind == front.Raw {
			return
		}
		src := bytes.NewReader(b[:n])
		r := bufio.NewReader(src)
		want, err := http.ReadRequest(r)
		if err != nil {
			t.Fatalf("net/http refuses it: %v", err)
		}
		if rest, _ := io.ReadAll(r); len(rest) > 0 || want.Body != http.NoBody {
			t.Fatalf("there is more: %q", rest)
		}
		method := "GET"
		if q.Head {
			method = "HEAD"
		}
		if want.Method != method || want.RequestURI != string(q.Target) || want.Host != string(q.Host) ||
			want.ProtoMajor != 1 || want.ProtoMinor != 1 {
			t.Errorf("%s %s %s, and net/http has %s %s %s", method, q.Target, q.Host, want.Method, want.RequestURI,
				want.Host)
		}
		if kind == front.Whole {
			return
		}
		for _, name := range []string{"Connection", "If-Range", "If-Match", "If-Unmodified-Since", "Cache-Control",
			"Pragma", "Cdn-Loop", "Content-Length", "Transfer-Encoding", "Upgrade", "Expect", "Max-Forwards"} {
			if v := want.Header[name]; v != nil && !(name == "Connection" && allKeepAlive(v)) {
				t.Errorf("the lane answers a request with %s: %q", name, v)
			}
		}
		if v := want.Header["Range"]; len(v) > 1 || len(v) == 1 && v[0] != string(q.Range) {
			t.Errorf("the lane answers a request with the Range %q for %q", v, q.Range)
		}
		have := http.Header{}
		for name := range want.Header {
			q.CopyTo(have, name)
			if strings.Join(have[name], "\n") != strings.Join(want.Header[name], "\n") {
				t.Errorf("%s is %q, and net/http has %q", name, have[name], want.Header[name])
			}
		}
	})
}

func allKeepAlive(lines []string) bool {
	for _, l := range lines {
		if !strings.EqualFold(l, "keep-alive") {
			return false
		}
	}
	return true
}
