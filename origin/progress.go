package origin

import "net/http"

// progress is told how a request gets on.
type progress interface {
	// connected is called before a request is written to a connection. It is called again when the
	// request takes another connection.
	connected(c *conn, reused bool)
	// unsent is called if nothing could be written.
	unsent()
	// interim is called for each interim response. An error ends the request.
	interim(status int, h http.Header) error
}

// sending is the progress of an attempt.
type sending struct {
	p       *Pool
	pl      *place
	o       *FetchOptions
	reqBody *requestBody
	used    *conn
	sent    bool // the server may have received the request
}

func (g *sending) connected(c *conn, reused bool) {
	g.used, g.sent = c, true
	g.p.connected(g.pl, c, reused)
}

func (g *sending) unsent() { g.sent = false }

func (g *sending) interim(status int, h http.Header) error {
	if status == http.StatusContinue {
		g.reqBody.wantBody()
	}
	if g.o.Interim != nil {
		g.o.Interim(status, h)
	}
	return nil
}

// probeProgress is the progress of a probe.
type probeProgress struct{ hasConnected bool }

func (g *probeProgress) connected(*conn, bool)          { g.hasConnected = true }
func (g *probeProgress) unsent()                        {}
func (g *probeProgress) interim(int, http.Header) error { return nil }
