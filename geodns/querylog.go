package geodns

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"github.com/miekg/dns"
)

// QueryLog logs a sample of the queries, as one record per query.
type QueryLog struct {
	Log    slog.Handler // for example a slog.JSONHandler
	Sample float64      // share of the queries to log, 0 to 1; 0 means 1

	lines chan logged // created by the first Reload
}

// logged is a query that waits to be logged.
type logged struct {
	at     time.Time
	took   time.Duration
	from   netip.AddrPort
	tcp    bool
	name   name
	qtype  uint16
	rcode  int
	subnet netip.Prefix // the client subnet; invalid if there is none
	scope  int
	nodes  []string
	size   int
}

// maxLogged is how many queries may wait to be logged. Further ones are not logged, so that a slow
// disk never delays an answer.
const maxLogged = 4096

// samples reports whether to log the next query. It is false for a nil QueryLog.
func (l *QueryLog) samples() bool {
	return l != nil && (l.Sample == 0 || l.Sample >= 1 || rand.Float64() < l.Sample)
}

// write queues a line, or drops it if the queue is full.
func (l *QueryLog) write(line logged) {
	select {
	case l.lines <- line:
	default:
	}
}

// line returns the log line for a response.
func (r *resolver) line(began time.Time, from netip.AddrPort, tcp bool, size int) logged {
	l := logged{at: began, took: time.Since(began), from: from, tcp: tcp, name: r.q.qname, qtype: r.q.qtype,
		rcode: r.rcode, scope: r.scope, size: size}
	if s := r.q.subnet; s.raw != nil && s.addr.IsValid() {
		l.subnet = netip.PrefixFrom(s.addr, s.source)
	}
	for _, c := range r.served {
		l.nodes = append(l.nodes, c.node.name)
	}
	return l
}

// run writes the queued lines until ctx is done.
func (l *QueryLog) run(ctx context.Context) {
	for {
		select {
		case line := <-l.lines:
			_ = l.Log.Handle(ctx, line.record()) // there is nowhere to report an error
		case <-ctx.Done():
			return
		}
	}
}

func (line *logged) record() slog.Record {
	r := slog.NewRecord(line.at, slog.LevelInfo, "query", 0)
	transport := "udp"
	if line.tcp {
		transport = "tcp"
	}
	qtype, ok := dns.TypeToString[line.qtype]
	if !ok {
		qtype = "TYPE" + strconv.Itoa(int(line.qtype)) // RFC 3597 section 5
	}
	rcode, ok := dns.RcodeToString[line.rcode]
	if !ok {
		rcode = strconv.Itoa(line.rcode)
	}
	r.AddAttrs(
		slog.String("client", line.from.Addr().Unmap().String()), slog.String("transport", transport),
		slog.String("name", line.name.String()),
		slog.String("type", qtype), slog.String("rcode", rcode), slog.Int("bytes", line.size),
		slog.Int64("microseconds", line.took.Microseconds()),
	)
	if line.subnet.IsValid() {
		r.AddAttrs(slog.String("subnet", line.subnet.String()), slog.Int("scope", line.scope))
	}
	if len(line.nodes) > 0 {
		r.AddAttrs(slog.Any("nodes", line.nodes))
	}
	return r
}
