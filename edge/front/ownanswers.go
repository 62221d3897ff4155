package front

import (
	"bytes"
	"net/http"
	"strconv"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// net/http itself answers an HTTP/1.1 request that it can't parse, whose header block is too large,
// or that has an unknown expectation. It calls no handler for them, and its response has no
// Cache-Status. The connection replaces such a response with the one that the edge would have sent.

// Write writes p, or replaces it if it is a response of net/http itself. A response is net/http's
// own if it is written before the request came to a handler.
func (h *handedOff) Write(p []byte) (int, error) {
	if !h.laneConn.handling.Load() {
		if answer := h.laneConn.lane.server.replaceOwn(p); answer != nil {
			_, err := h.Conn.Write(answer)
			return len(p), err
		}
	}
	return h.Conn.Write(p)
}

// replaceOwn returns the edge's response in place of one of net/http itself; nil if p isn't one.
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
