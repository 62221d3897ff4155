// Package origin fetches misses: from the servers of a site, and from the edges that stand between.
//
// A Pool is the servers of a site. It sends each request to one of them. A Route leads through
// tiers of edges to a Pool: first the edge of the own region that owns the key, then the shield,
// then the Pool.
//
// # Which server
//
// Balance chooses among the servers that look healthy. Backups are used only while no primary looks
// healthy. A server that comes back begins with a tenth of its share and has all of it after
// SlowStart.
//
// Probes (Health) and requests tell how a server looks. Three failures in a row eject a server: no
// connection, no answer in time, or a 5xx other than 501, 505, 508 and 510. The ejection lasts for
// the interval of probes, or 5 seconds, and twice as long each time that follows soon, up to 5
// minutes. A timeout during which the server answered nobody ejects it at once.
//
// A visitor chooses what a request is. So the last of the failures must be proven the server's own:
// it took no connection, or another server did better with the same request. After three failures
// in a row, Fetch asks another server for that proof (proof.go). A failure that can't be compared
// brings the next probe forward.
//
// The last server is never ejected. It gets requests whatever comes of them; after three failures
// in a row its state is "failing" until a request succeeds. When most servers look unhealthy, all
// are used but those that take no connections. These are tried by one request at a time, so that
// requests fail at once when all servers are down.
//
// A server that has answered nothing for a second, or for four times what it usually takes, is
// passed over meanwhile, and for 5 seconds after the requests that waited for it have left.
//
// # Retries
//
// A request is sent again if it changes nothing and has no body, or if it reached no server. A
// server that answers 502, 503 or 504 is not asked again for that request; another one is. Retries
// of what reached a server have a budget: a fifth of the requests of the last ten seconds, or ten.
//
// # Limits
//
// Bounds hold for the requests under way at a server, for the connections to it, and for the queue
// before all servers, which is first come, first served. Clients may hold some requests: uploads,
// methods other than GET, responses that can't be stored. These have three quarters of each bound,
// so that fetches for the cache have a place. One client has a quarter. Tunnels are counted apart.
// A request that may not have a place yet lets later ones pass that may.
//
// # Whose fault it is
//
// The body of a request is wrapped on its way to a server (requestbody.go). An error of reading it is
// the client's fault, and so is what then becomes of the round trip and of the response: neither
// changes how the server looks. A server owes an answer from the end of the body on, and its
// silence and latency are measured from there.
//
// # Answers that come early
//
// A final answer that comes before the request's body goes to the client at once. "Expect:
// 100-continue" is passed on. The client is told to send when the body is first read: once the
// origin wants it, or has said nothing for a second, and never after an answer. If a server answers
// and closes the connection while the body is still being sent, the failed write waits until the
// answer was read (conn.go).
//
// # Connections
//
// A server may end each connection after its response and take 5 ms or longer to open one. For such
// a server with TLS, connections are opened in advance (spare.go). Their number is that of the
// requests in twice the time that opening one takes, or of the last burst if it was less than a
// minute ago. It is at most 64, and at most what MaxConnections leaves. A connection that nobody
// uses is closed after a second, or later where opening one takes long.
//
// A connection over HTTP/1 that was idle for as long as the server's "Keep-Alive: timeout" allows,
// less a second, gets no further request (keepalive.go): its next write fails with nothing sent,
// and the transport takes another connection, for a POST too.
//
// A connection over HTTP/1 on which a server sent more than its response gets no further request
// (unsolicited.go). A request that takes a used connection waits until the transport's buffer is empty,
// and looks whether the socket has anything. If something came, nothing is written, and the request
// goes to another connection.
//
// # Names
//
// Names of servers are re-resolved when their TTL expires. All addresses are used in turn, and
// raced (RFC 8305) when one does not answer. When the resolver fails, what was known stays.
//
// # Tiers
//
// The owner of a key is an edge of the region, by rendezvous hashing among those that are up. Each
// edge tells the next at which stage a request is, and a request goes on only to later stages.
// CDN-Loop (RFC 8586) has an identity of each process on the way. Methods other than GET, and keys
// whose responses can't be stored, go to the Pool directly. While edges disagree about who is up,
// an object may be fetched twice.
package origin
