package front

import (
	"bytes"
	"net/http"
	"strconv"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// net/http answers a request of HTTP/1.1 by itself that it can't parse, whose header block is too
// large, or that expects something unknown. Nobody is asked before, and such an answer has no
// Cache-Status. Its connections write what the edge would have answered in its place.

// Write writes, or replaces an answer of net/http's own. That is what is written before a request
// came to a handler.
func (h *handed) Write(p []byte) (int, error) {
	if !h.own.handling.Load() {
		if own := h.own.lane.server.replaceOwn(p); own != nil {
			_, err := h.Conn.Write(own)
			return len(p), err
		}
	}
	return h.Conn.Write(p)
}

// replaceOwn returns an error of the edge in place of one that net/http says by itself; nil if it
// is none.
func (s *Server) replaceOwn(p []byte) []byte {
	line, _, _ := bytes.Cut(p, []byte("\r\n"))
	line, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !ok {
		return nil
	}
	code, _, _ := bytes.Cut(line, []byte(" "))
	status, err := strconv.Atoi(string(code))
	if err != nil || status < 400 {
		return nil
	}
	why := "malformed request"
	if _, text, ok := bytes.Cut(line, []byte(": ")); ok {
		why = string(text)
	}
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		why = "header fields too large"
	case http.StatusExpectationFailed:
		why = unknownExpectation
	case http.StatusNotImplemented:
		why = "unknown transfer coding"
	}
	text := http.StatusText(status)
	body := text + ": " + why + "\n"
	b := []byte("HTTP/1.1 " + string(code) + " " + text + "\r\nCache-Control: no-store\r\nCache-Status: ")
	b = httpcache.Status{Detail: why}.Append(b, s.Name)
	b = append(b, "\r\nConnection: close\r\nContent-Length: "+strconv.Itoa(len(body))+
		"\r\nContent-Type: text/plain; charset=utf-8\r\nDate: "...)
	b = time.Now().UTC().AppendFormat(b, http.TimeFormat)
	s.Metrics.Counters("", status, "none").Observe(int64(len(body)), time.Now())
	return append(b, "\r\n\r\n"+body...)
}
