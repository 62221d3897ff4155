package http2

import (
	"net"

	"golang.org/x/net/http2/hpack"
)

// Request is a request without a body, as it came.
type Request struct {
	Method, Scheme, Authority, Path string
	// Fields are its header fields, in order, with names in lower case. They are valid until Find
	// returns.
	Fields []hpack.HeaderField
	// Room is how many bytes of a body are taken at once. What is longer, and what it refers to,
	// waits for the client.
	Room int
}

// Answer is a response that is ready to be sent.
type Answer struct {
	// Body is what DATA frames are made of. It is not changed before the response is released.
	Body []byte
	// Done is told of the end: how many bytes of the body were sent, and whether the response was
	// sent whole. It is called once, in any goroutine, with no lock held. Nil means that nobody is.
	Done func(sent int64, whole bool)
}

// Ready looks a request up among responses that are ready to be sent. It is called in the goroutine
// that reads the connection, so it must not wait.
type Ready interface {
	// Find finds the answer to a request on a connection, and appends its header block to b, which
	// has to be one that needs no state of HPACK (AppendStatus, AppendField). ok is false if the
	// request is for the handler; b and the answer are not looked at then.
	Find(c any, r *Request, b []byte) (block []byte, a Answer, ok bool)
	// Open makes what Find is given for a connection, with the server name of TLS, "" without.
	Open(c Conn) any
}

// Conn is what a Ready learns of a connection.
type Conn struct {
	ServerName string // that the client gave; "" without
	Secure     bool   // it is over TLS
	RemoteAddr string
	NetConn    net.Conn
}
