package front

import "time"

// Limits for the connections and requests of clients.
const (
	HeaderTimeout  = 10 * time.Second // for a request's header block
	IdleTimeout    = 2 * time.Minute  // of a connection between requests
	BodyTimeout    = time.Minute      // of waiting for a body, beyond the time it takes at bodyRate
	bodyRate       = 1 << 10          // bytes a second
	lingerTimeout  = 2 * time.Second  // for a client to stop sending after it has its response
	SendTimeout    = time.Minute      // for a client to take 256 KiB at most
	MaxHeaderBytes = 64 << 10         // of a request; more is answered with 431
	MaxFields      = 200              // header lines of a request; more are answered with 431
	MaxURL         = 8 << 10          // bytes of a request target; a longer one is answered with 414
	maxConns       = 1024             // of one client network: an IPv4 address or an IPv6 /64; loopback is not limited
	MaxStreams     = 100              // concurrent requests on a connection of HTTP/2 or HTTP/3
	pingAfter      = 30 * time.Second // without a frame, before an HTTP/2 connection gets a PING
	pingTimeout    = 15 * time.Second // for the answer to the PING
	DrainTimeout   = 30 * time.Second // for requests under way when the edge stops
)
