package origin

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A response that readPlain reads is read as net/http reads it.
func FuzzPlainResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\nEtag: \"1\"\r\n\r\nok",
		"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nx-a: 1\r\nX-A:\t2 \r\nB:\r\n\r\n",
		"HTTP/1.1 500 A: b\r\nContent-Length: 9\r\nC:\x80\r\n\r\nshort",
	} {
		f.Add(s)
	}
	r := request(f, http.MethodGet, "/", "")
	f.Fuzz(func(t *testing.T, text string) {
		in := bufio.NewReaderSize(strings.NewReader(text), 16<<10)
		_, _ = in.Peek(1)
		x := &http1Exchange{c: &http1Conn{in: in}, r: r}
		resp := x.readPlain()
		if resp == nil {
			return
		}
		if resp.Body != http.NoBody {
			resp.Body = io.NopCloser(plainBody{x})
		}
		got := responseText(resp, nil)
		if want := responseText(http.ReadResponse(bufio.NewReader(strings.NewReader(text)), r)); got != want {
			t.Errorf("%q:\n%s\nnet/http has\n%s", text, got, want)
		}
	})
}

// plainBody reads a body without the end of its exchange.
type plainBody struct{ x *http1Exchange }

func (b plainBody) Read(p []byte) (int, error) { return b.x.readBody(p) }

// Most responses are plain. One that is not leaves the text to net/http.
func TestPlainResponses(t *testing.T) {
	t.Parallel()
	const plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
	for text, want := range map[string]bool{
		plain: true,
		strings.Replace(plain, "keep-alive", "close", 1):              false,
		strings.Replace(plain, "1.1 200", "1.0 200", 1):               false,
		strings.Replace(plain, "200", "304", 1):                       false,
		strings.Replace(plain, "200", "103", 1):                       false,
		strings.Replace(plain, "\r\n\r\n", "\r\n", 1):                 false,
		strings.Replace(plain, "Connection", "Content-Length", 1):     false,
		strings.Replace(plain, "Connection", "Transfer-Encoding", 1):  false,
		strings.Replace(plain, "Connection", " Connection", 1):        false,
		strings.Replace(plain, "Content-Length: 2", "Length: two", 1): false,
	} {
		in := bufio.NewReader(strings.NewReader(text))
		_, _ = in.Peek(1)
		x := &http1Exchange{c: &http1Conn{in: in}, r: request(t, http.MethodGet, "/", "")}
		if got := x.readPlain() != nil; got != want || !got && in.Buffered() != len(text) {
			t.Errorf("%q: read %t, %d of %d bytes are left", text, got, in.Buffered(), len(text))
		}
	}
}
