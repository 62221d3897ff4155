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

// QueryLog writes a sample of the queries, a JSON object a line.
type QueryLog struct {
	Log    slog.Handler // where lines go, such as a slog.JSONHandler
	Sample float64      // the part of queries that are logged, 0 to 1; 0 is 1

	lines chan logged // made by Serve
}

// logged is a line before it is written.
type logged struct {
	at     time.Time
	took   time.Duration
	from   netip.AddrPort
	tcp    bool
	name   name
	qtype  uint16
	rcode  int
	subnet netip.Prefix // of the client subnet; not valid without one
	scope  int
	nodes  []string
	size   int
}

// maxLogged is how many lines wait for the writer; more are left out, so that a slow disk never
// slows an answer.
const maxLogged = 4096

// samples reports whether the next query is to be logged.
func (l *QueryLog) samples() bool {
	return l != nil && (l.Sample == 0 || l.Sample >= 1 || rand.Float64() < l.Sample)
}

// write queues a line, or leaves it out.
func (l *QueryLog) write(line logged) {
	select {
	case l.lines <- line:
	default:
	}
}

// line is what is logged of a response.
func (r *resolver) line(began time.Time, from netip.AddrPort, tcp bool, size int) logged {
	l := logged{at: began, took: time.Since(began), from: from, tcp: tcp, name: r.q.qname, qtype: r.q.qtype, rcode: r.rcode, scope: r.scope, size: size}
	if s := r.q.subnet; s.raw != nil && s.addr.IsValid() {
		l.subnet = netip.PrefixFrom(s.addr, s.source)
	}
	for _, c := range r.served {
		l.nodes = append(l.nodes, c.node.name)
	}
	return l
}

// run writes lines until ctx ends.
func (l *QueryLog) run(ctx context.Context) {
	for {
		select {
		case line := <-l.lines:
			_ = l.Log.Handle(ctx, line.record()) // there is nobody to tell that the log can't be written
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
		slog.String("client", line.from.Addr().Unmap().String()), slog.String("transport", transport), slog.String("name", line.name.String()),
		slog.String("type", qtype), slog.String("rcode", rcode), slog.Int("bytes", line.size), slog.Int64("microseconds", line.took.Microseconds()),
	)
	if line.subnet.IsValid() {
		r.AddAttrs(slog.String("subnet", line.subnet.String()), slog.Int("scope", line.scope))
	}
	if len(line.nodes) > 0 {
		r.AddAttrs(slog.Any("nodes", line.nodes))
	}
	return r
}
