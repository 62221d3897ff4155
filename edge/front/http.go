package front

import (
	"log/slog"
	"net/http"
)

// newClientHTTP returns net/http's server of HTTP/1.1 and HTTP/2 for clients.
func (s *Server) newClientHTTP() *http.Server {
	h := NewHTTP(s, s.Log)
	h.ConnState = s.conns.state
	h.ConnContext = withClient
	h.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: MaxStreams, MaxDecoderHeaderTableSize: 4 << 10, MaxEncoderHeaderTableSize: 4 << 10,
		MaxReadFrameSize:              16 << 10,
		MaxReceiveBufferPerConnection: HTTP2ConnectionWindow, MaxReceiveBufferPerStream: HTTP2RequestWindow,
		SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: SendTimeout,
	}
	return h
}

// NewHTTP returns a server for h with the time limits that all HTTP servers of an edge have.
func NewHTTP(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            HeaderTimeout, // it also bounds a TLS handshake
		IdleTimeout:                  IdleTimeout,
		MaxHeaderBytes:               MaxHeaderBytes,
		DisableGeneralOptionsHandler: true, // h answers OPTIONS *, not net/http
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
