// Command http compares Kaiku's edge with other caches in front of the same origin: nginx, Varnish,
// Apache Traffic Server and Caddy. Caddy's core has no cache, so it serves files.
//
// Each peer runs on core 0. This program, with the origin and the load, runs on core 1. They talk
// over loopback. All peers of a case run at the same time. The load goes to one after the other, in
// several rounds. The result is the CPU time (user and system) of a peer's processes divided by the
// number of answered requests, because the load generator often limits the requests per second.
// Before and after each round, some objects are compared byte by byte. The origin counts its
// requests: for hits, there must be none. The program installs nothing, and writes only to a
// directory that it removes at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/peer"
)

const (
	peerCore = "0"
	loadCore = "1"
	// pinned is an environment variable. It is set once this program runs on its own core.
	pinned = "KAIKU_BENCH_PINNED"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench/http:", err)
		os.Exit(1)
	}
}

// bench is one run of this program.
type bench struct {
	rounds int
	length time.Duration // of each round
	dir    string        // removed at the end
	cert   string
	key    string
	files  string // folder of the files that Caddy serves
	origin *origin
	log    io.Writer
	fresh  int64 // number of the next object that no peer has requested
	mebis  int64 // MiB of objects in the case http1/cold
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("http", flag.ContinueOnError)
	kaiku := flags.String("kaiku", "bin/kaiku", "the program to measure")
	before := flags.String("before", "", "another version of it, to measure beside it")
	caddy := flags.String("caddy", "bin/caddy", "Caddy, built in bench/caddy")
	cases := flags.String("cases", "^(http|tls)",
		"a regular expression: which cases; growth/ takes a quarter of an hour more, page/ needs chromium")
	peers := flags.String("peers", "", "which peers, separated by commas; all if empty")
	skip := flags.Bool("skip-missing", false, "go on without peers that are not installed")
	list := flags.Bool("list", false, "list the cases")
	asJSON := flags.String("json", "", "write all samples to this file")
	svg := flags.String("svg", "", "write a chart to this file")
	out := flags.String("out", "", "write the tables to this file too")
	b := &bench{log: stderr, fresh: coldFrom}
	flags.IntVar(&b.rounds, "rounds", 3, "rounds, 1 to 50")
	flags.Int64Var(&b.mebis, "fill", 128, "MiB of objects for http1/cold to fill a peer with, at least, in each round")
	flags.DurationVar(&b.length, "time", 2*time.Second, "of load on each peer in each round, 1s to 1m")
	if err := flags.Parse(args); err != nil {
		return err
	}
	which, err := regexp.Compile(*cases)
	if err != nil {
		return err
	}
	todo := slices.DeleteFunc(allCases(*before != ""), func(c testCase) bool { return !which.MatchString(c.Name) })
	if *list {
		for _, c := range todo {
			fmt.Fprintf(stdout, "%-16s %s: %s\n", c.Name, c.Title, strings.Join(c.Peers, ", "))
		}
		return nil
	}
	if b.rounds < 1 || b.rounds > 50 || b.length < time.Second || b.length > time.Minute || len(todo) == 0 {
		return errors.New("rounds or time out of range, or no such case")
	}
	if os.Getenv(pinned) == "" {
		return repin()
	}
	servers, err := choose(allServers(absolute(*kaiku), absolute(*before), absolute(*caddy)), *peers, *skip, stderr)
	if err != nil {
		return err
	}
	todo = slices.DeleteFunc(todo, func(c testCase) bool {
		return !slices.ContainsFunc(servers, func(s server) bool { return slices.Contains(c.Peers, s.name) })
	})
	if err := b.prepare(); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	todo = slices.DeleteFunc(todo, func(c testCase) bool {
		if roomFor(b.dir, c) {
			return false
		}
		fmt.Fprintf(stderr, "left out: %s, as %s has no room for it\n", c.Name, b.dir)
		return true
	})
	results, err := b.all(ctx, todo, servers)
	if len(results) == 0 {
		return err
	}
	return errors.Join(err, write(newReport(results, servers), stdout, *out, *asJSON, *svg))
}

// repin executes this program again on the core of the load, with a file limit for
// 10,000 connections.
func repin() error {
	if runtime.NumCPU() < 2 {
		return errors.New("needs two cores: one for the peers, one for the load")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	// Child processes inherit a limit that this program sets itself, but not the limit that the Go
	// runtime has raised.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < idleConns*5/4 {
		return fmt.Errorf("needs a limit of open files of %d, and has %d: ulimit -n %[1]d (%[3]v)", idleConns*5/4,
			limit.Cur, err)
	}
	taskset, err1 := exec.LookPath("taskset")
	self, err2 := os.Executable()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return syscall.Exec(taskset, append([]string{"taskset", "-c", loadCore, self}, os.Args[1:]...),
		append(os.Environ(), pinned+"=1"))
}

// absolute returns the absolute path of a program, or "" for "".
func absolute(program string) string {
	if program == "" {
		return ""
	}
	if path, err := filepath.Abs(program); err == nil {
		return path
	}
	return program
}

// choose returns the selected servers that are installed.
func choose(servers []server, names string, skip bool, log io.Writer) (all []server, err error) {
	tools := []peer.Package{{Program: "taskset", Install: "util-linux"}, {Program: "wrk", Install: "wrk"},
		{Program: "h2load", Install: "nghttp2-client"}}
	if err := peer.Missing(tools...); err != nil {
		return nil, err
	}
	var missing []error
	for _, s := range servers {
		if names != "" && !slices.Contains(strings.Split(names, ","), s.name) {
			continue
		}
		if err := peer.Missing(s.needs); err != nil {
			missing = append(missing, err)
			continue
		}
		all = append(all, s)
	}
	if len(missing) > 0 && !skip {
		return nil, errors.Join(append(missing, errors.New("or go on without them: -skip-missing"))...)
	}
	for _, err := range missing {
		fmt.Fprintln(log, "left out:", err)
	}
	return all, nil
}

// prepare creates what the peers need.
func (b *bench) prepare() (err error) {
	if b.dir, err = os.MkdirTemp("", "kaiku-bench-http"); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil { // some peers don't run as root
		return err
	}
	b.files = filepath.Join(b.dir, "files")
	if b.cert, b.key, err = makeCertificate(b.dir); err != nil {
		return err
	}
	b.origin, err = newOrigin()
	return errors.Join(err, os.Mkdir(b.files, 0o755))
}

// all runs the cases. With an error, it also returns the results until then.
func (b *bench) all(ctx context.Context, cases []testCase, servers []server) (all []result, err error) {
	running := map[string]*instance{}
	stopAll := func() {
		for name, i := range running {
			i.stop()
			delete(running, name)
		}
	}
	defer stopAll()
	for n, c := range cases {
		if n == 0 || c.Setup != cases[n-1].Setup {
			stopAll()
		}
		r, err := b.one(ctx, c, servers, running)
		if err != nil {
			return all, fmt.Errorf("%s: %w", c.Name, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// one runs one case.
func (b *bench) one(ctx context.Context, c testCase, servers []server, running map[string]*instance) (result, error) {
	r := result{Case: c, Samples: map[string][]sample{}}
	for round := range b.rounds {
		for k := range servers {
			s := &servers[k]
			if !slices.Contains(c.Peers, s.name) {
				continue
			}
			i := running[s.name]
			if i == nil {
				var err error
				if i, err = b.start(ctx, s, c.Setup); err != nil {
					return r, err
				}
				running[s.name] = i
			}
			m, err := b.measure(ctx, i, c)
			if err != nil {
				delete(running, s.name)
				return r, fmt.Errorf("%s: %w\n%s", s.name, err, i.stop())
			}
			if c.ofMemory() { // a process that had connections before uses more memory than a fresh one
				i.stop()
				delete(running, s.name)
			}
			r.Samples[s.name] = append(r.Samples[s.name], m)
			fmt.Fprintf(b.log, "%s round %d: %-13s %8.2f µs of CPU, %7.0f requests/s, %3.0f %% busy, p50 %.0f p99 %.0f µs, %d at the origin, %d MiB, %.0f bytes/connection\n",
				c.Name, round+1, s.name, m.CPU, m.Rate, m.Busy, m.P50, m.P99, m.Origin, m.RSS>>20, m.Conn)
		}
	}
	return r, nil
}
