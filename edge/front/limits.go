package front

import "time"

const (
	HeaderTimeout  = 10 * time.Second // for a request's header block
	IdleTimeout    = 2 * time.Minute  // of a connection between requests
	BodyTimeout    = time.Minute      // that a request's body may be waited for, beyond a second for each bodyRate
	bodyRate       = 1 << 10          // bytes a second
	lingerTimeout  = 2 * time.Second  // for a client to stop sending when it has its answer
	SendTimeout    = time.Minute      // for a client to take 256 KiB at most
	MaxHeaderBytes = 64 << 10         // of a request; more is answered with 431
	MaxFields      = 200              // header lines of a request; more are answered with 431
	MaxURL         = 8 << 10          // bytes of a request target; a longer one is answered with 414
	maxConns       = 1024             // of one client network: an IPv4 address or an IPv6 /64; loopback is not limited
	MaxStreams     = 100              // requests at once on a connection of HTTP/2 or HTTP/3
	pingAfter      = 30 * time.Second // without a frame an HTTP/2 connection is asked whether it is there
	pingTimeout    = 15 * time.Second // for the answer
	DrainTimeout   = 30 * time.Second // for what is under way when the edge stops
)
