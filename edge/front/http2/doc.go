// Package http2 is an HTTP/2 server (RFC 9113) for an edge. It reads frames with the Framer of
// golang.org/x/net/http2 and header blocks with that module's hpack. The rest is its own.
//
// One goroutine reads each connection, the reader. It answers a request at once if a Ready has the
// response. Any other request gets a goroutine that calls the http.Handler.
//
// Frames without flow control (HEADERS, SETTINGS, PING, …) wait in one buffer, in order. Bodies
// wait with their streams, and the scheduler makes DATA frames of them by priority (RFC 9218). One
// write of up to 64 KiB carries frames of many streams, so that TLS records are full. One goroutine
// at a time writes: the reader when it has no more input, a handler that has returned, or a
// goroutine started to write. An idle connection has no goroutine for writing.
//
// A handler gets what net/http gives it: http.Flusher, http.ResponseController with deadlines and
// EnableFullDuplex, interim responses, trailers whether announced or not, and a context that is
// canceled when the client resets the request. It does not get Hijack and Push.
//
// # The path of a hit
//
// The reader decodes a header block (headerBlock.read) and checks that it is a request (check).
// Then it asks Ready, with no lock held (conn.find). Ready appends a header block whose fields need
// no HPACK state, and names a body. The reader appends HEADERS to its output, and the DATA frames
// of a short body after that (conn.direct). It writes when it has read all its input, so that
// responses to requests that came together leave together. A body in files, or one that does not
// fit, becomes a stream without a handler (conn.open). The writer takes frames from that by
// priority.
//
// # What a client can hold
//
// An idle connection holds 7 KiB: its stack of 4 KiB, its state, and an HPACK table, which may grow
// by 4 KiB. For its first second it also holds a read buffer of 4 KiB (see Waiter). A net.Conn with
// TLS holds about 7 KiB besides. While the connection has output it holds one or two buffers of
// 64 KiB more. A stream holds 4 KiB with the stack of its handler, and header fields of at most
// Limits.MaxHeaderBytes. TestMemoryOfIdle measures connections and streams.
//
// Limits.StreamWindow bounds the unread body of a stream, Limits.ConnWindow those of a connection.
// When more than 64 KiB of output waits, handlers wait before they add header blocks. At most one
// handler's header block goes beyond that bound.
//
// A stream that the client canceled counts until its handler has returned, so that a connection
// never has more than twice Limits.MaxStreams handlers. A client gets GOAWAY with
// ENHANCE_YOUR_CALM, and its connection ends, if it cancels most requests early or causes their
// reset, or if it sends too many frames that transfer nothing.
package http2
