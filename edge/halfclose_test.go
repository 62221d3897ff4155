package edge

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A client that ends its sending side while the origin takes its time gets what the origin
// answered, an error, or the end of the connection, and no success that nobody sent.
func TestHalfClosedClientsGetNoEmptySuccess(t *testing.T) {
	var path atomic.Value
	asked := make(chan struct{}, 1)
	answer := make(chan struct{})
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path.Load() {
			select {
			case asked <- struct{}{}:
			default:
			}
			<-answer
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Cache-Control", strings.ReplaceAll(r.URL.RawQuery, "_", ", "))
		w.WriteHeader(http.StatusNonAuthoritativeInfo) // which no edge makes up
		_, _ = io.WriteString(w, "x")
	}, 1)
	t.Cleanup(func() { close(answer) })
	n := 0
	for _, conf := range []*tls.Config{nil, e.trust()} {
		for _, before := range []string{"", "GET /stored?max-age=1000 HTTP/1.1\r\nHost: www.example\r\n\r\n",
			"GET /passed?no-store HTTP/1.1\r\nHost: www.example\r\n\r\n",
			"POST /posted?no-store HTTP/1.1\r\nHost: www.example\r\nContent-Length: 1\r\n\r\nx"} {
			for what, request := range map[string]string{
				"a miss":            "GET %s?max-age=1000 HTTP/1.1\r\nHost: www.example\r\n\r\n",
				"a miss of 1.0":     "GET %s?max-age=1000 HTTP/1.0\r\nHost: www.example\r\n\r\n",
				"what is private":   "GET %s?private_max-age=1000 HTTP/1.1\r\nHost: www.example\r\n\r\n",
				"a pass":            "GET %s?no-store HTTP/1.1\r\nHost: www.example\r\nIf-Match: \"x\"\r\n\r\n",
				"a HEAD":            "HEAD %s?no-store HTTP/1.1\r\nHost: www.example\r\n\r\n",
				"a POST":            "POST %s?no-store HTTP/1.1\r\nHost: www.example\r\nContent-Length: 1\r\n\r\nx",
				"a POST of chunks":  "POST %s?no-store HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
				"an empty POST":     "POST %s?no-store HTTP/1.1\r\nHost: www.example\r\nContent-Length: 0\r\n\r\n",
				"a part of a POST":  "POST %s?no-store HTTP/1.1\r\nHost: www.example\r\nContent-Length: 100\r\n\r\nx",
				"a part of a chunk": "POST %s?no-store HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nx",
			} {
				n++
				this := fmt.Sprint("/slow", n)
				path.Store(this)
				t.Run(fmt.Sprintf("%s, TLS %t, after %.5q", what, conf != nil, before), func(t *testing.T) {
					addr := e.Addr().String()
					if conf != nil {
						addr = e.SecureAddr().String()
					}
					tcp, err := net.Dial("tcp", addr)
					if err != nil {
						t.Fatal(err)
					}
					defer tcp.Close()
					_ = tcp.SetDeadline(time.Now().Add(20 * time.Second))
					conn := interface {
						io.ReadWriter
						CloseWrite() error
					}(tcp.(*net.TCPConn))
					if conf != nil {
						conn = tls.Client(tcp, conf)
					}
					fmt.Fprintf(conn, before+request, this)
					<-asked
					if err := conn.CloseWrite(); err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(conn)
					if err != nil {
						t.Fatal(err)
					}
					for line := range strings.Lines(string(got)) {
						if strings.HasPrefix(line, "HTTP/") && strings.Contains(line, " 200 ") {
							t.Errorf("got %q", got)
						}
					}
				})
			}
		}
	}
}
