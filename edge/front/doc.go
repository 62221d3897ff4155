// Package front serves the connections of an edge's clients: the listeners, the limits for clients,
// and HTTP/1.1, HTTP/2 and HTTP/3 up to the point where a request is one message. It knows nothing
// of caching. It is given a Handler, which answers requests, and a Ready, which finds responses
// that can be sent as they are.
//
// # The way of a request
//
// conns.go admits a connection and counts it by its network. Over TCP, the hit lane has it first
// (lane.go). It answers plain requests for which Ready finds a response, with one read and one
// write. For anything else it hands the connection off to net/http. net/http and quic-go call
// Server.Do, which makes an Exchange of the request. Do checks the target, finds out whether there
// is a body (message.go), and limits what the request may hold (underway.go, parked.go). Then the
// Handler answers. Do counts and logs the request when that is over. Over HTTP/3 the lane comes
// just before the Handler (http3ready.go).
//
// # What the Handler can rely on
//
// Exchange.Target is valid and the same over every protocol. A request without a body has
// http.NoBody and a length of 0. The front aborts a request whose client is too slow to send its
// body or to take the response (requestbody.go, watchdog.go): a Read or Write fails then, so the
// Handler needs no deadline of its own. A panic of the Handler ends that request only.
//
// # What clients can rely on
//
// When Serve ends, it tells each client to make no more requests (GOAWAY, Connection: close). It
// finishes the requests under way for DrainTimeout, then cuts off and counts the rest.
//
// Other edges connect to a listener of their own (peers.go, peerlistener.go), with TLS and
// certificates on both sides. They are trusted; Exchange.Peer marks their requests.
package front
