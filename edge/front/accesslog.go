package front

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// AccessLog writes a line of JSON for each request of a client, when it is answered. It collects
// lines and writes them a few times a second, so that no response waits for a disk.
type AccessLog struct {
	Out    io.Writer
	Sample float64 // the share of requests that are logged, 0 to 1; 0 means 1

	lost prometheus.Counter
	full chan struct{} // wakes the writer

	mu    sync.Mutex
	lines []byte // not written yet
}

const (
	accessFlush = 64 << 10 // bytes of lines that wake the writer
	maxAccess   = 4 << 20  // bytes of lines that may wait for the writer; further lines are dropped
)

// access is one entry of the log.
type access struct {
	client, protocol, method, host, target, site, cache string
	referer, agent, id                                  string
	status                                              int
	bytes                                               int64
	began                                               time.Time
}

// start prepares the log. l may be nil.
func (l *AccessLog) start(reg prometheus.Registerer) error {
	if l == nil {
		return nil
	}
	l.lost = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_access_log_lost_total",
		Help: "Lines that were left out of the access log because it could not be written fast enough."})
	l.full = make(chan struct{}, 1)
	return reg.Register(l.lost)
}

// samples reports whether the next request is to be logged.
func (l *AccessLog) samples() bool {
	return l != nil && (l.Sample == 0 || l.Sample >= 1 || rand.Float64() < l.Sample)
}

// add adds the line of an entry. It drops the line if maxAccess bytes wait already.
func (l *AccessLog) add(a *access) {
	took := time.Since(a.began)
	l.mu.Lock()
	if len(l.lines) >= maxAccess {
		l.mu.Unlock()
		l.lost.Inc()
		return
	}
	l.lines = a.append(l.lines, took)
	n := len(l.lines)
	l.mu.Unlock()
	if n >= accessFlush {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

// run writes lines until ctx ends, and then what is left.
func (l *AccessLog) run(ctx context.Context) {
	tick := time.NewTicker(time.Second / 4)
	defer tick.Stop()
	var spare []byte
	for ended := false; !ended; {
		select {
		case <-tick.C:
		case <-l.full:
		case <-ctx.Done():
			ended = true
		}
		l.mu.Lock()
		lines := l.lines
		l.lines = spare[:0]
		l.mu.Unlock()
		if len(lines) > 0 {
			_, _ = l.Out.Write(lines) // the log can't report its own failure
		}
		spare = lines
		if cap(spare) > 4*accessFlush {
			spare = nil
		}
	}
}

// append appends the entry to b as a line of JSON. took is the time from the request to the end of
// the response.
func (a *access) append(b []byte, took time.Duration) []byte {
	b = append(b, `{"time":"`...)
	b = a.began.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, '"')
	for _, f := range [...]struct{ name, value string }{{"client", a.client}, {"protocol", a.protocol},
		{"method", a.method}, {"host", a.host}, {"target", a.target}, {"site", a.site}, {"cache", a.cache},
		{"referer", a.referer}, {"user_agent", a.agent}, {"request_id", a.id}} {
		if f.value == "" {
			continue
		}
		b = append(b, `,"`...)
		b = append(b, f.name...)
		b = append(b, `":`...)
		b = appendJSON(b, f.value)
	}
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(a.status), 10)
	b = append(b, `,"bytes":`...)
	b = strconv.AppendInt(b, a.bytes, 10)
	b = append(b, `,"microseconds":`...)
	b = strconv.AppendInt(b, took.Microseconds(), 10)
	return append(b, "}\n"...)
}

// appendJSON appends s as a JSON string.
func appendJSON(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string never fails
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// logAccess logs a request of the ordinary path.
func (s *Server) logAccess(w *Exchange, r *http.Request, began time.Time) {
	if !s.AccessLog.samples() {
		return
	}
	s.AccessLog.add(&access{client: clientIP(r), protocol: r.Proto, method: r.Method, host: r.Host,
		target: r.RequestURI, site: w.site, cache: Outcome(w.cache), referer: r.Header.Get("Referer"),
		agent: r.Header.Get("User-Agent"), id: w.id, status: w.status, bytes: w.bytes, began: began})
}

// logAccess logs a request of the hit lane.
func (c *laneConn) logAccess(q *Request, site string, status int, bytes int64, began time.Time) {
	log := c.lane.server.AccessLog
	if !log.samples() {
		return
	}
	if c.host != string(q.Host) {
		c.host = string(q.Host)
	}
	if c.address == "" {
		c.address, _, _ = net.SplitHostPort(c.RemoteAddr().String())
	}
	a := access{client: c.address, protocol: "HTTP/1.1", method: "GET", host: c.host, target: string(q.Target),
		site: site, cache: "hit", status: status, bytes: bytes, began: began,
		referer: q.first("Referer"), agent: q.first("User-Agent")}
	if q.Head {
		a.method = "HEAD"
	}
	log.add(&a)
}
