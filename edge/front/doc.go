// Package front is the connections of an edge's clients: the listeners, what a client may hold of
// the edge, and HTTP/1.1, HTTP/2 and HTTP/3 up to the point where a request is one message. It
// knows nothing of caching. It is given a Handler, which answers, and a Ready, which finds
// responses that can be sent as they are.
//
// # The way of a request
//
// A connection is admitted (conns.go) and counted by its network. Over TCP the hit lane has it
// first (lane.go): it answers plain requests that Ready has a response for, in a read and a write,
// and gives the connection to net/http for anything else. net/http and quic-go both call Server.Do,
// which makes an Exchange of the request: its target is checked, it is found out whether there is a
// body (message.go), what it may hold is bounded (underway.go, parked.go). Then the Handler
// answers. The request is counted and logged when that is over.
//
// # What the Handler can rely on
//
// Exchange.Target is valid and the same over every protocol. A request without a body has
// http.NoBody and a length of 0. A client that sends its body too slowly, or takes the answer too
// slowly, is given up (requestbody.go, senders.go): a Read or Write fails then, and needs no
// deadline of the handler's own. A handler that panics ends its request alone.
//
// # What clients can rely on
//
// When Serve is told to end, each client is told to make no more requests (GOAWAY, Connection:
// close), what is under way is finished for DrainTimeout, and what is left is cut off and counted.
//
// Other edges come by a listener of their own (peerlistener.go), with TLS on both sides. They are
// trusted: Exchange.Peer tells.
package front
