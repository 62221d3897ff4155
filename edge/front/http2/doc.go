// Package http2 is a server of HTTP/2 (RFC 9113) for an edge: it reads frames with the Framer of
// golang.org/x/net/http2 and header blocks with its hpack, and all else is its own.
//
// One goroutine a connection reads. A request that a Ready has an answer for is answered there and
// then; any other has a goroutine of its own that calls the http.Handler. What is to be sent waits
// in one place: frames without flow control (HEADERS, SETTINGS, PING, …) in a buffer, in order, and
// bodies with their streams, from which the scheduler takes DATA frames by RFC 9218. Frames of many
// streams leave in one write of up to 64 KiB, so that records of TLS are full. One goroutine at a
// time writes: the reader, when it has nothing more to read at once, a handler that has returned,
// or one that is started for it. None is there while a connection is idle.
//
// A handler finds what net/http gives it: http.Flusher, http.ResponseController with deadlines and
// EnableFullDuplex, interim responses, trailers announced and not, a context that ends when the
// client resets the request. Hijack and Push are not offered.
//
// # The way of a hit
//
// The reader decodes a header block (headerBlock.read), checks that it is a request (check), and
// asks Ready, with no lock held (conn.find). Ready appends a header block of fields that need no
// state of HPACK, and names a body. The reader appends HEADERS to what is to be written, and DATA
// frames of a short body behind it (conn.direct). It writes when it has read all that came, so
// that the answers to requests that came together leave together. A body in files, or one that
// does not fit, becomes a stream without a handler (conn.open), from which the writer takes frames
// by priority.
//
// # What a client can hold
//
// An idle connection has its goroutine, a buffer of 4 KiB for reading, and HPACK's table, of 4 KiB
// at most, beside what the net.Conn needs. While it has something to send, one or two buffers of 64
// KiB more. A stream has 1 KiB, its goroutine, and its header fields, of Limits.MaxHeaderBytes at
// most; of its body as much as Limits.StreamWindow lets in, and of all bodies of a connection
// Limits.ConnWindow. Header blocks that wait to be sent are one of a handler beyond 64 KiB: others
// wait.
//
// Streams that the client took back count until their handlers have returned, so that a connection
// never has more than twice Limits.MaxStreams of those. A client that takes most requests back
// early, or has them reset by what it sends, and one that sends frames which only cost, is sent
// GOAWAY with ENHANCE_YOUR_CALM, and the connection ends.
package http2
