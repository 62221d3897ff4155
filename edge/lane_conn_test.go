package edge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// Clients of kept connections that go on asking while the edge ends are told to close, and none
// loses a request: neither by hits nor by what is passed on.
func TestLaneDrains(t *testing.T) {
	for _, path := range []string{"/hit", "/pass"} {
		for _, secure := range []bool{false, true} {
			if path == "/hit" && secure {
				continue // over TLS what comes at the very last can't be told from nothing, as with net/http
			}
			t.Run(fmt.Sprintf("%s, TLS %v", path, secure), func(t *testing.T) {
				var passing atomic.Int64
				released := make(chan struct{})
				release := sync.OnceFunc(func() { close(released) })
				e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
					if strings.HasPrefix(r.URL.Path, "/pass") {
						w.Header().Set("Cache-Control", "no-store")
						passing.Add(1)
						<-released
						return
					}
					w.Header().Set("Cache-Control", "max-age=1000")
				}, 1)
				for range 4 {
					e.exchange(t, []byte("GET /hit HTTP/1.1\r\nHost: www.example\r\n\r\n"), secure, true)
					e.settle() // the lane answers with what is stored
				}
				e.dialRaw(t, secure) // it says nothing, so that draining takes a while
				const clients = 20
				var told, lost, asked atomic.Int64
				var all sync.WaitGroup
				t.Cleanup(release)
				for i := range clients {
					target := path
					if path == "/pass" {
						target += fmt.Sprint(i) // or they wait for each other
					}
					conn := e.dialRaw(t, secure)
					all.Go(func() {
						r := bufio.NewReader(conn)
						for {
							asked.Add(1)
							_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: www.example\r\n\r\n", target)
							resp, err := http.ReadResponse(r, nil)
							if err != nil {
								lost.Add(1)
								return
							}
							_, _ = io.Copy(io.Discard, resp.Body)
							if resp.Close {
								told.Add(1)
								return
							}
						}
					})
				}
				testwait.Until(t, "all ask", func() bool {
					return asked.Load() > 10*clients ||
						passing.Load() == clients
				})
				stopped := make(chan struct{})
				go func() {
					defer close(stopped)
					e.stop()
				}()
				testwait.Until(t, "no connection is taken any more", func() bool {
					conn, err := net.Dial("tcp", e.Addr().String())
					if err == nil {
						conn.Close()
					}
					return err != nil
				})
				release()
				all.Wait()
				<-stopped
				if told.Load() != clients || lost.Load() != 0 {
					t.Errorf("of %d clients %d were told to close, and %d lost a request", clients, told.Load(),
						lost.Load())
				}
			})
		}
	}
}

// Requests that come in two pieces, cut anywhere, are answered as those that come in one.
func TestLaneSplit(t *testing.T) {
	b := newBothWays(t)
	b.warm(t)
	const requests = "GET /a HTTP/1.1\r\nHost: www.example\r\n\r\n" +
		"GET /a HTTP/1.1\r\nHost: www.example\r\nRange: bytes=0-2\r\n\r\n" +
		"POST /p HTTP/1.1\r\nHost: www.example\r\nContent-Length: 3\r\n\r\nabc" +
		"GET /weak HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n"
	for _, secure := range []bool{false, true} {
		want := fmt.Sprint(normal(t, b.ordinary.exchange(t, []byte(requests), secure, true), "GET"))
		for i := 1; i < len(requests); i++ {
			conn := b.dialRaw(t, secure)
			_, _ = io.WriteString(conn, requests[:i])
			_, _ = io.WriteString(conn, requests[i:])
			var got bytes.Buffer
			_, _ = got.ReadFrom(conn)
			conn.Close()
			if got := fmt.Sprint(normal(t, got.Bytes(), "GET")); got != want {
				t.Fatalf("TLS %v, cut at %d: %s\nwant %s", secure, i, got, want)
			}
		}
	}
}

// Header blocks as long as the buffers, alone and after many short ones, are answered as by the
// ordinary path.
func TestLaneSizes(t *testing.T) {
	b := newBothWays(t)
	b.warm(t)
	for _, secure := range []bool{false, true} {
		for _, size := range []int{4095, 4096, 4097, 8191, 8192, 8193, 16384} {
			for _, target := range []string{"GET /a", "GET /404"} {
				for _, before := range []int{0, 1, 50, 111} {
					one := target + " HTTP/1.1\r\nHost: www.example\r\nX-Pad: \r\n\r\n"
					request := strings.Repeat("GET /weak HTTP/1.1\r\nHost: www.example\r\n\r\n",
						before) + strings.Replace(one, "Pad: ", "Pad: "+strings.Repeat("y", size-len(one)), 1)
					b.compare(t, []byte(request), secure, true)
				}
			}
			if t.Failed() {
				t.Fatalf("TLS %v, %d bytes", secure, size)
			}
		}
	}
}

// A client that leaves while its miss is fetched is noticed, on a connection that net/http was
// handed.
func TestLaneClientLeaves(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, hits := range []int{0, 4} {
			begun, gone := make(chan struct{}), make(chan struct{})
			e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=1000")
				if r.URL.Path == "/slow" {
					close(begun)
					<-r.Context().Done()
					close(gone)
				}
			}, 1)
			conn := e.dialRaw(t, secure)
			r := bufio.NewReader(conn)
			for range hits {
				_, _ = io.WriteString(conn, "GET /a HTTP/1.1\r\nHost: www.example\r\n\r\n")
				if _, err := http.ReadResponse(r, nil); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = io.WriteString(conn, "GET /slow HTTP/1.1\r\nHost: www.example\r\n\r\n")
			<-begun
			conn.Close()
			select {
			case <-gone:
			case <-time.After(30 * time.Second):
				t.Fatalf("TLS %v, after %d hits: not noticed", secure, hits)
			}
		}
	}
}

// What a client did not take is not counted as sent.
func TestLaneCountsWhatIsSent(t *testing.T) {
	const size = 200 << 10
	e := newEdge(t, static(strings.Repeat("x", size), "Cache-Control: max-age=1000"))
	for range 3 {
		e.exchange(t, []byte("GET /a HTTP/1.1\r\nHost: www.example\r\n\r\n"), false, true)
	}
	part := uint64(0)
	for i := 0; i < 20 && part == 0; i++ { // the socket may be full just where a body ends
		before := e.Sent()
		conn := e.dialRaw(t, false)
		_, _ = io.WriteString(conn, strings.Repeat("GET /a HTTP/1.1\r\nHost: www.example\r\n\r\n", 150))
		testwait.Until(t, "it waits", func() bool { return e.front.Waiting() == 1 })
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
		testwait.Until(t, "it is over", func() bool { return e.front.Active() == 0 && e.front.Waiting() == 0 })
		part = (e.Sent() - before) % size
	}
	if part == 0 {
		t.Error("whole bodies are counted, also where a part was sent")
	}
}

// A connection that net/http gives back at once is the lane's, though the goroutine that handed it
// over comes to note that late.
func TestLaneLeavesNothingOpen(t *testing.T) {
	e := newEdge(t, static("x", "Cache-Control: max-age=1000"))
	var all sync.WaitGroup
	conns := make([]net.Conn, 50)
	for i := range conns {
		conns[i] = e.dialRaw(t, false)
		all.Go(func() {
			r := bufio.NewReader(conns[i])
			for range 40 {
				_, _ = io.WriteString(conns[i], "GET /a HTTP/1.1\r\nHost: www.example\r\nRange: bytes=0-2\r\n\r\n")
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
			}
		})
	}
	all.Wait()
	e.stop()
	for i, conn := range conns {
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("connection %d is open after the edge has ended: %v", i, err)
		}
	}
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}
