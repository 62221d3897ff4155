package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// tunnelBuffer is how many bytes of a tunnel are copied at once, in each direction.
const tunnelBuffer = 16 << 10

// checkSwitch returns an error if an origin has switched to another protocol than the client asked
// for.
func checkSwitch(r *http.Request, resp *http.Response) error {
	to := resp.Header.Get("Upgrade")
	if _, ok := resp.Body.(io.ReadWriteCloser); !ok || !strings.EqualFold(to, r.Header.Get("Upgrade")) {
		return fmt.Errorf("the origin switched to %q, and the client asked for %q", to, r.Header.Get("Upgrade"))
	}
	return nil
}

// passTunnel passes a 101 on, and then the bytes of both sides, up to the end of one side. If the
// client ends first, the origin may still send.
func (s *Cache) passTunnel(x *exchange, resp *http.Response, st httpcache.Status) {
	server := resp.Body.(io.ReadWriteCloser)
	defer server.Close()
	defer context.AfterFunc(x.r.Context(), func() { _ = server.Close() })()
	h := s.passHeader(x, resp, st)
	client, buffered, err := x.w.Hijack()
	if err != nil {
		s.Log.Warn("the connection can't become a tunnel", "url", x.url(), "error", err)
		return
	}
	defer client.Close()
	head := bytes.NewBufferString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Write(head) // a Buffer takes everything
	_, _ = head.WriteString("\r\n")
	if _, err := client.Write(head.Bytes()); err != nil {
		return // the client left
	}
	received := io.Reader(client)
	if n := buffered.Reader.Buffered(); n > 0 { // the client didn't wait for the 101
		early, _ := buffered.Reader.Peek(n)
		received = io.MultiReader(bytes.NewReader(bytes.Clone(early)), client)
	}
	closeBoth := func() { _, _ = server.Close(), client.Close() }
	sent := make(chan struct{})
	go func() { // ends with one of the connections
		defer close(sent)
		if !carry(server, received) {
			closeBoth()
		}
	}()
	if !carry(client, server) {
		closeBoth()
	}
	<-sent
}

// carry copies up to the end of from. It reports whether it could pass that end on, so that the
// other direction may go on.
func carry(to io.Writer, from io.Reader) bool {
	if _, err := io.CopyBuffer(to, from, make([]byte, tunnelBuffer)); err != nil {
		return false
	}
	half, ok := to.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}
