package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// alikeCase is a request and a handler that answers it.
type alikeCase struct {
	name    string
	request func(r *http.Request)
	body    func() io.Reader
	handler http.HandlerFunc
}

func text(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }

func zeros(n int) func() io.Reader {
	return func() io.Reader { return bytes.NewReader(make([]byte, n)) }
}

func set1(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

// alikeCases cover what handlers do and the forms that requests have.
var alikeCases = []alikeCase{
	{name: "nothing", handler: func(http.ResponseWriter, *http.Request) {}},
	{name: "a small body", handler: func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = io.WriteString(w, "<html>x")
	}},
	{name: "a large body", handler: func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = w.Write(make([]byte, 1<<20))
	}},
	{name: "many pieces", handler: func(w http.ResponseWriter, _ *http.Request) {
		for i := range 3000 {
			fmt.Fprintf(w, "%d ", i)
		}
	}},
	{name: "4,096 bytes and one", handler: func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 4096))
		_, _ = w.Write([]byte("y"))
	}},
	{name: "a status", handler: func(w http.ResponseWriter,
		_ *http.Request) {
		w.WriteHeader(418)
		w.WriteHeader(200)
	}},
	{name: "no content", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
		_, err := io.WriteString(w, "x")
		if !errors.Is(err, http.ErrBodyNotAllowed) {
			panic(err)
		}
	}},
	{name: "not modified", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", `"x"`)
		w.Header().Set("Content-Length", "17")
		w.WriteHeader(304)
	}},
	{name: "a length", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "3")
		_, _ = io.WriteString(w, "abc")
	}},
	{name: "a bad length", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "x")
		_, _ = io.WriteString(w, "abc")
	}},
	{name: "no type", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "abc")
	}},
	{name: "a coding", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "x")
		_, _ = io.WriteString(w, "abc")
	}},
	{name: "HEAD", request: func(r *http.Request) { r.Method = "HEAD" },
		handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "abc") }},
	{name: "HEAD of much", request: func(r *http.Request) { r.Method = "HEAD" },
		handler: func(w http.ResponseWriter, _ *http.Request) {
			for range 10 {
				if n, err := w.Write(make([]byte, 1000)); n != 1000 || err != nil {
					panic(err)
				}
			}
		}},
	{name: "HEAD with a length", request: func(r *http.Request) { r.Method = "HEAD" },
		handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "12345") }},
	{name: "HEAD that is flushed", request: func(r *http.Request) { r.Method = "HEAD" },
		handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "12345")
			w.(http.Flusher).Flush()
			if _, err := w.Write(make([]byte, 100)); err != nil || r.Context().Err() != nil {
				panic(err)
			}
		}},
	{name: "flushed pieces", handler: func(w http.ResponseWriter, _ *http.Request) {
		for i := range 5 {
			fmt.Fprintf(w, "%d ", i)
			_ = http.NewResponseController(w).Flush()
		}
	}},
	{name: "fields of HTTP/1.1", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Transfer-Encoding", "chunked")
		w.Header().Set("X-Bad\x01", "x")
		w.Header().Set("X-Bad-Value", "x\ny")
		w.Header()["X-Many"] = []string{"1", "", "2"}
		w.Header()["lower"] = []string{"1"}
	}},
	{name: "fields after WriteHeader", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		w.Header().Set("X-Late", "1")
	}},
	{name: "announced trailers", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-One, X-Two, Content-Length")
		_, _ = io.WriteString(w, "abc")
		w.Header().Set("X-One", "1")
		w.Header().Set("X-Two", "2")
		w.Header().Set("X-Three", "3")
	}},
	{name: "announced trailers that don't come",
		handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Trailer", "X-One") }},
	{name: "trailers that are not announced", handler: func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "abc")
		w.Header().Set(http.TrailerPrefix+"X-One", "1")
	}},
	{name: "trailers without a body", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "1")
	}},
	{name: "large fields", handler: func(w http.ResponseWriter, _ *http.Request) {
		for i := range 20 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("ü!", 4000))
		}
		_, _ = io.WriteString(w, "abc")
	}},
	{name: "interim responses", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</x>")
		w.Header().Set("Content-Length", "3")
		w.WriteHeader(103)
		w.WriteHeader(102)
		_, _ = io.WriteString(w, "abc")
	}},
	{name: "an answer that waits for the body to be asked for", request: set1("Expect", "100-continue"),
		body:    text("body"),
		handler: func(w http.ResponseWriter, r *http.Request) { echo(w, r) }},
	{name: "an answer that does not ask for the body", request: set1("Expect", "100-continue"), body: text("body"),
		handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(417) }},
	{name: "a request's body", body: zeros(1 << 20), handler: echo},
	{name: "a body of unknown length",
		body:    func() io.Reader { return io.MultiReader(strings.NewReader("abc"), strings.NewReader("def")) },
		handler: echo},
	{name: "a body with trailers", body: text("abc"), request: func(r *http.Request) {
		r.ContentLength = -1
		r.Trailer = http.Header{"X-Sum": {"7"}, "X-Other": {"8"}}
	}, handler: echo},
	{name: "a body that is not read", body: zeros(5 << 20),
		handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "abc") }},
	{name: "a body that is closed", body: zeros(1 << 20), handler: func(w http.ResponseWriter, r *http.Request) {
		_, _ = r.Body.Read(make([]byte, 10))
		_ = r.Body.Close()
		_, err := r.Body.Read(make([]byte, 10))
		fmt.Fprint(w, err != nil)
	}},
	{name: "cookies", request: func(r *http.Request) { r.Header["Cookie"] = []string{"a=1; b=2; c=3"} }, handler: echo},
	{name: "a query and odd letters",
		request: func(r *http.Request) { r.URL.Path, r.URL.RawQuery = "/a b/%/ü", "x=%20&y;z" }, handler: echo},
	{name: "OPTIONS *", request: func(r *http.Request) { r.Method, r.URL.Path, r.URL.Opaque = "OPTIONS", "", "*" },
		handler: echo},
	{name: "a panic", handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	{name: "a panic on the way", handler: func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 10000))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}},
	{name: "a deadline of reading", body: func() io.Reader { return slowReader{} },
		handler: func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, errors.Is(err, os.ErrDeadlineExceeded))
		}},
	{name: "a deadline of writing that is over", handler: func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
		_, _ = w.Write(make([]byte, 1<<20))
	}},
	{name: "full duplex", body: text("abc"), handler: func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		fmt.Fprint(w, control.EnableFullDuplex(), control.Flush())
		_, _, err := control.Hijack()
		fmt.Fprint(w, errors.Is(err, http.ErrNotSupported))
		_, pushes := w.(http.Pusher)
		_ = pushes
		echo(w, r)
	}},
	{name: "what a request has", handler: func(w http.ResponseWriter, r *http.Request) {
		_, isServer := r.Context().Value(http.ServerContextKey).(*http.Server)
		local, isAddr := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		fmt.Fprint(w, isServer, isAddr && local.Network() == "tcp", r.TLS.ServerName, r.TLS.NegotiatedProtocol,
			r.RemoteAddr != "", r.Pattern)
	}},
	{name: "the end of a connection", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "abc")
	}},
}

// slowReader is a body that sends one byte every 50 ms and has no end.
type slowReader struct{}

func (slowReader) Read([]byte) (int, error) { time.Sleep(50 * time.Millisecond); return 1, nil }

// echo answers with everything that it finds in a request.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	fmt.Fprintln(w, r.Method, r.URL, r.RequestURI, r.Proto, r.Host, r.ContentLength, len(body), err, r.TransferEncoding)
	for _, h := range []http.Header{r.Header, r.Trailer} {
		for _, name := range slices.Sorted(func(yield func(string) bool) {
			for name := range h {
				if !yield(name) {
					return
				}
			}
		}) {
			fmt.Fprintf(w, "%s: %q\n", name, h[name])
		}
	}
}

// outcome returns all that a client sees of a response, as text.
func outcome(client *http.Client, c alikeCase) string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var told []string
	ctx = httptrace.WithClientTrace(ctx,
		&httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			told = append(told, fmt.Sprint(code, h))
			return nil
		}})
	method, body := "GET", io.Reader(nil)
	if c.body != nil {
		method, body = "POST", c.body()
	}
	r, err := http.NewRequestWithContext(ctx, method, "https://example.com/path", body)
	if err != nil {
		return err.Error()
	}
	if c.request != nil {
		c.request(r)
	}
	resp, err := client.Do(r)
	if err != nil {
		return fmt.Sprint(told, "no answer")
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if resp.Header.Get("Date") != "" {
		resp.Header.Set("Date", "given")
	}
	if len(b) > 2000 {
		b = fmt.Appendf(nil, "%d bytes", len(b))
	}
	return fmt.Sprint(told, resp.Status, resp.Header, resp.ContentLength, resp.Trailer, " ", err != nil, "\n",
		string(b))
}

// A client sees the same of a handler as over net/http's server.
func TestAlike(t *testing.T) {
	for _, c := range alikeCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ours := start(t, c.handler)
			golang := httptest.NewUnstartedServer(c.handler)
			golang.EnableHTTP2, golang.Config.DisableGeneralOptionsHandler = true, true
			golang.Config.ErrorLog = log.New(io.Discard, "", 0)
			golang.StartTLS()
			t.Cleanup(golang.Close)
			// client trusts the server, because httptest has one certificate for all servers.
			theirs := &testServer{t: t, addr: golang.Listener.Addr().String()}
			if got, want := outcome(ours.client(), c), outcome(theirs.client(), c); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}
