package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// controlProcess is the environment variable by which the test binary is a control node of
// BenchmarkFleet: a Control, as JSON.
const controlProcess = "KAIKU_TEST_CONTROL"

func TestMain(m *testing.M) {
	if conf := os.Getenv(controlProcess); conf != "" {
		if err := runControl(conf); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// controlConf is what the process of a control node is told.
type controlConf struct {
	Node, Addr, Cluster, Dir string
	Peers, Others            []string
	Turn                     int
}

// runControl is a control node with a lease, as of kaiku control, until it is interrupted.
func runControl(text string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var conf controlConf
	if err := json.Unmarshal([]byte(text), &conf); err != nil {
		return err
	}
	k, err := NewKey([]byte(strings.Repeat("k", 44)))
	if err != nil {
		return err
	}
	tls, err := k.TLS(conf.Node, RoleControl)
	if err != nil {
		return err
	}
	log := logToStderr()
	c := &Control{Node: conf.Node, Addr: conf.Addr, Cluster: conf.Cluster, Dir: conf.Dir, Peers: conf.Peers,
		Others: conf.Others, Turn: conf.Turn, TLS: tls, Log: log}
	if err := c.Listen(ctx); err != nil {
		return err
	}
	own := &Client{Node: conf.Node, Servers: append([]string{conf.Addr}, conf.Others...), TLS: tls, Log: log}
	if err := own.Dial(); err != nil {
		return err
	}
	defer own.Close()
	r := &Registry{Client: own, Self: func() Lease { return Lease{Roles: []string{RoleControl}, Ready: true} }}
	go func() { _ = r.Serve(ctx) }()
	return c.Serve(ctx)
}

// controlProcesses starts control nodes in processes of their own, and returns these.
func controlProcesses(b *testing.B, n int) (nodes []*control, pids []int) {
	b.Helper()
	nodes = makeControl(b, b.TempDir(), n)
	for _, c := range nodes {
		text, err := json.Marshal(controlConf{c.Node, c.Addr, c.Cluster, c.Dir, c.Peers, c.Others, c.Turn})
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env, cmd.Stderr = append(os.Environ(), controlProcess+"="+string(text)), os.Stderr
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		pids = append(pids, cmd.Process.Pid)
		b.Cleanup(func() {
			_ = cmd.Process.Signal(os.Interrupt)
			_ = cmd.Wait()
		})
	}
	return nodes, pids
}

// cpuTime is what a process has used, from /proc.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip(err)
	}
	words := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ticks := 0
	for _, w := range words[11:13] { // utime and stime
		n, err := strconv.Atoi(w)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// BenchmarkFleet has three control nodes, each a process, two name servers and KAIKU_EDGES edges
// (50 unless it is set). It measures the part of a core that a control node uses while nothing
// happens, for KAIKU_IDLE seconds (20), and how long a purge that waits for all edges takes. Run it
// with -benchtime 20x.
func BenchmarkFleet(b *testing.B) {
	edges, idle := envInt("KAIKU_EDGES", 50), time.Duration(envInt("KAIKU_IDLE", 20))*time.Second
	nodes, pids := controlProcesses(b, 3)
	names := make([]string, edges)
	for i := range names {
		names[i] = fmt.Sprintf("edge%d", i)
	}
	nearest := func(i int) []*control { return append(slices.Clone(nodes[i%3:]), nodes[:i%3]...) }
	var work []func(context.Context) error
	var all []*Follower
	var first *Registry
	for i, name := range names {
		r := &Registry{Client: dial(b, nearest(i), name, RoleEdge), Edges: names, OnDemand: true}
		f := &Follower{Client: r.Client, Changed: r.Renew,
			Apply: func([]Logged, Position) error { return nil }, Lost: func(Position) error { return nil }}
		r.Self = func() Lease {
			return Lease{Version: "v1.2.3", Roles: []string{RoleEdge}, Region: "eu", Address: "192.0.2.1",
				Ready:   f.InTouch(),
				Applied: f.Applied(), Started: time.Unix(1, 0)}
		}
		work, all = append(work, r.Serve, f.Serve), append(all, f)
		if first == nil {
			first = r
		}
	}
	for i := range 2 {
		r := &Registry{Client: dial(b, nearest(i), fmt.Sprintf("ns%d", i), RoleGeoDNS),
			Self: func() Lease { return Lease{Roles: []string{RoleGeoDNS}, Ready: true} }}
		work = append(work, r.Serve)
	}
	serveParts(b, work...)
	for _, f := range all {
		testwait.Until(b, "all are in touch", f.InTouch)
	}
	time.Sleep(20 * time.Second) // what looks for a consumer nearby has ended
	before, own := cpuTime(b, pids[0])+cpuTime(b, pids[1])+cpuTime(b, pids[2]), cpuTime(b, os.Getpid())
	time.Sleep(idle)
	used := (cpuTime(b, pids[0]) + cpuTime(b, pids[1]) + cpuTime(b, pids[2]) - before) / 3
	own = cpuTime(b, os.Getpid()) - own
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		seq := appendPurge(b, first.Client, len(took))
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		for _, p := range first.Wait(ctx, seq) {
			if !p.Applied {
				b.Errorf("%s has not applied %d", p.Node, seq)
			}
		}
		cancel()
		took = append(took, time.Since(began))
		time.Sleep(100 * time.Millisecond)
	}
	slices.Sort(took)
	b.ReportMetric(100*used.Seconds()/idle.Seconds(), "%core/control")
	b.ReportMetric(100*own.Seconds()/idle.Seconds()/float64(edges), "%core/edge")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "wait-median-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "wait-max-ms")
	b.ReportMetric(0, "ns/op")
}

func envInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

func logToStderr() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}
