package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/peer"
)

const (
	oneCore = "kaiku"
	// The suffixes for the other kinds of queries.
	signedCase  = ", signed"
	aheadCase   = ", signed ahead"
	oneNameCase = ", one name"

	oneOfTwo = "kaiku, 1 thread, shared cores"
	twoCores = "kaiku, 2 threads, shared cores"
)

// server is a server to measure.
type server struct {
	name    string
	threads int
	version func() string
	// prepare writes the configuration to dir, and returns the command line. The process that it
	// starts must be the server itself.
	prepare func(w *world, dir, host, port string) ([]string, error)
	// shared puts server and load on the same two cores, because there may be no third one.
	// Otherwise the server has one core, and the load has the other.
	shared bool
	load   loadKind
}

// loadKind is the kind of queries that a server gets.
type loadKind int

const (
	byNetwork loadKind = iota // all names for all networks
	signed                    // the same, with the DO bit
	oneName                   // one name without a client subnet
)

func allServers(kaiku string) []server {
	kaikuWith := func(key bool) func(w *world, dir, host, port string) ([]string, error) {
		return func(w *world, dir, host, port string) ([]string, error) {
			path, err := filepath.Abs(kaiku)
			if key && err == nil {
				err = exec.Command(path, "dnssec", "keygen", filepath.Join(dir, "key")).Run()
			}
			return []string{path, "geodns", "--config", dir + "/fleet.yaml", "--node", "ns1", "--listen",
				net.JoinHostPort(host, port)}, errors.Join(err, w.kaikuConfig(dir, key))
		}
	}
	startGdnsd := func(w *world, dir, host, port string) ([]string, error) {
		return []string{"gdnsd", "-c", dir, "start"}, w.gdnsdConfig(dir, net.JoinHostPort(host, port))
	}
	knotWith := func(signs knotSigning) func(w *world, dir, host, port string) ([]string, error) {
		return func(w *world, dir, host, port string) ([]string, error) {
			err := w.knotConfig(dir, host, port, signs)
			if signs == knotAhead && err == nil { // the module needs the key at its start
				err = exec.Command("keymgr", "-c", dir+"/knot.conf", origin, "generate", "algorithm=13", "ksk=yes",
					"zsk=yes").Run()
			}
			return []string{"knotd", "-c", dir + "/knot.conf"}, err
		}
	}
	gdnsdVersion := func() string { return peer.Version("gdnsd", "-h") }
	knotVersion := func() string { return peer.Version("knotd", "-V") }
	kaikuVersion := func() string { return peer.Version(kaiku, "version") }
	return []server{
		{oneCore, 1, kaikuVersion, kaikuWith(false), false, byNetwork},
		{"gdnsd", 1, gdnsdVersion, startGdnsd, false, byNetwork},
		{"knot", 1, knotVersion, knotWith(knotUnsigned), false, byNetwork},
		{oneCore + signedCase, 1, kaikuVersion, kaikuWith(true), false, signed},
		{"knot" + signedCase, 1, knotVersion, knotWith(knotOnline), false, signed},
		{"knot" + aheadCase, 1, knotVersion, knotWith(knotAhead), false, signed},
		{oneCore + oneNameCase, 1, kaikuVersion, kaikuWith(false), false, oneName},
		{"gdnsd" + oneNameCase, 1, gdnsdVersion, startGdnsd, false, oneName},
		{oneOfTwo, 1, kaikuVersion, kaikuWith(false), true, byNetwork},
		{twoCores, 2, kaikuVersion, kaikuWith(false), true, byNetwork},
	}
}

// measurement is one round of a server.
type measurement struct {
	Dnsperf loaded `json:"dnsperf"`
	Flood   loaded `json:"flood"`
	RSS     int    `json:"rss_kib"`
}

// loaded is the result of one load.
type loaded struct {
	QPS     float64 `json:"queries_per_second"`
	CPU     float64 `json:"cpu_us_per_query"` // user and system time
	Busy    float64 `json:"busy_percent"`     // of the CPU time that its threads could use
	Answers int     `json:"answers"`
	Lost    int     `json:"lost"`
}

// measure starts a server, checks its answers, measures it under both loads, and stops it.
func (w *world) measure(ctx context.Context, s server, seconds int) (m measurement, err error) {
	dir, err := os.MkdirTemp(w.dir, "server")
	if err != nil {
		return m, err
	}
	port, err := peer.FreePort()
	if err != nil {
		return m, err
	}
	args, err := s.prepare(w, dir, "127.0.0.1", port)
	if err != nil {
		return m, err
	}
	serverCores, loadCores := "0", "1"
	if s.shared {
		serverCores, loadCores = "0,1", "0,1"
	}
	p, err := peer.Start(ctx, serverCores, []string{fmt.Sprintf("GOMAXPROCS=%d", s.threads)}, args...)
	if err != nil {
		return m, err
	}
	defer func() {
		if log := p.Stop(); err != nil {
			err = fmt.Errorf("%w\n%s", err, log)
		}
	}()
	w.load = s.load
	if err := w.checkAnswers(ctx, net.JoinHostPort("127.0.0.1", port)); err != nil {
		return m, err
	}
	if _, _, err := w.dnsperf(ctx, port, loadCores, 1); err != nil { // fills the caches
		return m, err
	}
	if m.Dnsperf, err = loadWith(ctx, w.dnsperf, p, s.threads, port, loadCores, seconds); err != nil {
		return m, err
	}
	if m.Flood, err = loadWith(ctx, w.flood, p, s.threads, port, loadCores, seconds); err != nil {
		return m, err
	}
	m.RSS = int(p.RSS() >> 10)
	return m, nil
}

// loadWith runs a load, and measures the CPU time of the server's process.
func loadWith(ctx context.Context, load func(ctx context.Context, port, cores string, seconds int) (answers, lost int,
	err error),
	p *peer.Process, threads int, port, cores string, seconds int) (l loaded, err error) {
	before, err := p.CPU()
	if err != nil {
		return l, err
	}
	began := time.Now()
	if l.Answers, l.Lost, err = load(ctx, port, cores, seconds); err != nil {
		return l, err
	}
	took := time.Since(began)
	after, err := p.CPU()
	if err != nil {
		return l, err
	}
	spent := after - before
	l.QPS = float64(l.Answers) / took.Seconds()
	l.CPU = float64(spent.Nanoseconds()) / 1000 / float64(l.Answers)
	l.Busy = 100 * spent.Seconds() / took.Seconds() / float64(threads)
	return l, nil
}

// checkAnswers waits until the server answers. Then it checks that networks of each site get that
// site's address.
func (w *world) checkAnswers(ctx context.Context, addr string) error {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, 1500)
	for tries := 0; tries < 100; tries++ {
		_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
		prefix, _ := network(0)
		_, _ = conn.Write(query(names[0]+"."+origin, 1, prefix))
		if _, err = conn.Read(buf); err == nil {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond): // a refused connection fails at once
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("no answer after 10 s: %w", err)
	}
	for n := range len(sites) * 4 {
		prefix, at := network(n)
		q := query(names[n%len(names)]+"."+origin, 1, prefix)
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		if w.load == signed {
			setDO(q)
		}
		q[1] = byte(n + 1) // the ID; late answers to the queries above have 0
		if _, err := conn.Write(q); err != nil {
			return err
		}
		size := 0
		for size == 0 || buf[1] != q[1] {
			if size, err = conn.Read(buf); err != nil {
				return err
			}
		}
		if w.load == signed && binary.BigEndian.Uint16(buf[6:]) != 2 {
			return fmt.Errorf("no signature in the answer: %x", buf[:size])
		}
		want := netip.MustParseAddr(sites[at].four).As4()
		if !bytes.Contains(buf[:size], want[:]) {
			return fmt.Errorf("%s is not answered with %s: %x", prefix, sites[at].four, buf[:size])
		}
	}
	return nil
}

var (
	completed = regexp.MustCompile(`Queries completed:\s+(\d+)`)
	lostCount = regexp.MustCompile(`Queries lost:\s+(\d+)`)
	noError   = regexp.MustCompile(`Response codes:\s+NOERROR (\d+) `)
)

// dnsperf runs dnsperf for some seconds. It limits outstanding queries to what the server's socket
// holds without dropping: about 270 with net.core.rmem_default at 208 KiB.
func (w *world) dnsperf(ctx context.Context, port, cores string, seconds int) (answers, lost int, err error) {
	clients, depth := "32", "200"
	if w.load == oneName {
		clients, depth = "8", "100"
	}
	out, err := exec.CommandContext(ctx, "taskset", "-c", cores, "dnsperf", "-s", "127.0.0.1", "-p", port, "-B", "-d",
		w.queries[w.load],
		"-c", clients, "-T", "1", "-q", depth, "-l", strconv.Itoa(seconds), "-t", "2").CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("dnsperf: %w\n%s", err, out)
	}
	number := func(r *regexp.Regexp) int {
		if found := r.FindSubmatch(out); found != nil {
			n, _ := strconv.Atoi(string(found[1]))
			return n
		}
		return -1
	}
	answers, lost = number(completed), number(lostCount)
	if answers <= 0 || number(noError) != answers {
		return 0, 0, fmt.Errorf("dnsperf got other answers than NOERROR:\n%s", out)
	}
	return answers, lost, nil
}

// flood runs this program's flood for some seconds.
func (w *world) flood(ctx context.Context, port, cores string, seconds int) (answers, lost int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, "taskset", "-c", cores, self, "-flood", net.JoinHostPort("127.0.0.1", port),
		"-queries", w.queries[w.load],
		"-seconds", strconv.Itoa(seconds))
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	var r floodResult
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("flood: %w\n%s", err, out)
	}
	return r.Answers, r.Lost, nil
}
