// Package origin fetches misses from the servers of a site, and through the edges in between.
//
// A Pool is the set of servers of a site. It sends each request to one of them. A Route leads
// through tiers of edges to a Pool: first the edge of the region that owns the key, then the
// shield, then the Pool.
//
// # Server selection
//
// Balance chooses among the healthy servers. Backups get requests only while no primary is healthy.
// A server that comes back starts with a tenth of its weight and has all of it after SlowStart.
//
// Probes (Health) and requests decide whether a server is healthy. Three failed requests in a row
// eject a server. A request fails if the server takes no connection, does not answer in time, or
// answers with a 5xx status other than 501, 505, 508 and 510. The ejection lasts for the probe
// interval, or 5 seconds without probes. Each ejection that follows soon lasts twice as long, up to
// 5 minutes. One timeout ejects a server that answered no other request meanwhile.
//
// Clients control their requests. So the last of the three failures must be proven to be the
// server's own: the server took no connection, or another server answered the same request well.
// After three failures in a row, Fetch sends the request to another server to get that proof
// (proof.go). A failure that can't be compared brings the next probe forward.
//
// The last server is never ejected. It keeps getting requests. After three failures in a row its
// state is "failing" until a request succeeds. While most servers are unhealthy, all that take
// connections are used (panic mode). A server that takes no connections is tried by one request at
// a time, so that requests fail at once while all servers are down.
//
// A server is silent if it has answered nothing for a second, or for four times its usual latency.
// Other servers are preferred to a silent one. When the requests that waited for it are canceled,
// it counts as silent for another 5 seconds.
//
// # Retries
//
// A request is retried if its method is safe and it has no body, or if it reached no server. After
// a 502, 503 or 504, the retry goes to a server that has not had the request yet. Retries of
// requests that reached a server have a budget: a fifth of the requests of the last ten seconds, or
// ten.
//
// # Limits
//
// Three things are limited: the concurrent requests at a server, the connections to it, and the
// queue of the pool, which is first come, first served. Clients can hold some requests open:
// uploads, unsafe methods, and responses that can't be stored. These may use three quarters of each
// limit, so that fetches into the cache always find a place. One client may use a quarter. Tunnels
// are counted separately. Later requests pass a request in the queue that may not have a place yet.
//
// # Client faults
//
// The body of a request is wrapped on its way to a server (requestbody.go). An error of reading it
// is the client's fault. The failed round trip, or the failed response, then does not affect the
// server's health. The server's silence and latency are measured from the end of the request's
// body.
//
// # Early responses
//
// A final response that comes before the end of the request's body goes to the client at once.
// "Expect: 100-continue" is passed on. The client gets 100 Continue when the body is first read:
// once the origin wants it, or has not answered for a second, and never after a final response. If
// a server responds and closes the connection while the body is still being sent, the response
// counts.
//
// # Connections
//
// A request over HTTP/1.1 is written and its response read in the goroutine of its caller
// (http1.go). Only a request's body has a goroutine of its own. Most responses are read by
// http1response.go, and unusual ones by net/http. A server that chooses HTTP/2 in the TLS handshake
// gets net/http's transport (transport.go).
//
// Up to 64 idle connections to a server are kept, for 90 seconds at most, or for the server's
// "Keep-Alive: timeout" less a second (keepalive.go). Before a request is written to one, the pool
// looks whether the server has closed it or has sent anything since its last response. Such a
// connection gets no further request, and the request takes another one, even if it is a POST.
//
// Some servers close each connection after its response. If opening a connection to such a server
// takes at least 5 ms, the pool opens connections in advance (spare.go). Their number is the number
// of requests in twice the time that opening one takes, or the size of the last burst if that was
// less than a minute ago. It is at most 64, and at most what MaxConnections leaves. An unused
// connection is closed after a second, or later if opening one takes long.
//
// # Names
//
// Names of servers are re-resolved when their TTL expires. All addresses are used in turn, and
// tried in parallel (RFC 8305) if one does not answer. If a lookup fails, the previous addresses
// stay in use.
//
// # Tiers
//
// The owner of a key is an edge of the region, chosen by rendezvous hashing among those that are
// up. Each edge tells the next one the stage of a request, and a request only moves on to later
// stages. CDN-Loop (RFC 8586) identifies each process on the way. Methods other than GET, and keys
// whose responses can't be stored, go to the Pool directly. While edges disagree about which edges
// are up, an object may be fetched twice.
package origin
