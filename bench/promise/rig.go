//go:build linux

package promise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// The hosts. Edges e1 and e2 are of one region, beside c1 and the origin.
const (
	hostOrigin = "origin"
	hostDNS    = "ns"
	hostClone  = "e2b" // a second machine that takes itself for e2
	siteHost   = "www.example.com"
)

func edges() []string    { return []string{"e1", "e2", "e3"} }
func controls() []string { return []string{"c1", "c2", "c3"} }

// setup is how a fleet is to be before a fault.
type setup struct {
	controls     int           // how many control nodes the fleet file has
	line         world.Line    // of e3
	delay        time.Duration // of each answer of the origin
	readers      int           // of each edge; 0 means as many as usual
	groups       int           // of objects that are read and purged; 0 means all
	disk         string        // of edges; empty means 1GiB
	clone        bool          // e2 has a second machine, which is not started
	credential   bool          // e2 has a credential that is limited to the site www, in place of the fleet key
	ownDisk      []string      // hosts whose folder is a file system of its own, which can lose power or fill up
	disconnected time.Duration
}

// rig is a world with a fleet in it, and those who read and purge.
type rig struct {
	options Options
	setup   setup
	dir     string
	world   *world.World
	origin  *origin
	check   *checker
	objects []object

	mu      sync.Mutex
	running map[string]*world.Process
	sites   map[string]string // by node: the name of the site in its fleet file
	grown   map[string]int    // by node: how many control nodes its fleet file has, if not those of setup
	sent    int
	quiet   map[string]bool        // by host: readers leave the quiet objects alone
	urgent  map[string]chan string // by host: objects to read at once
}

// dirPrefix begins the names of the folders of rigs; the id of their process follows.
const dirPrefix = "kaiku-promise-"

// removeStale removes the folders of rigs that were killed.
func removeStale() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		var pid int
		if _, bad := fmt.Sscanf(filepath.Base(dir), dirPrefix+"%d-",
			&pid); bad == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

func (r *rig) hosts() []world.Host {
	var all []world.Host
	add := func(name string, at world.Place, line world.Line) {
		all = append(all, world.Host{Name: name, At: at, Addr: netip.AddrFrom4([4]byte{198, 18, byte(len(all) + 1),
			10}), Line: line})
	}
	add("c1", world.NewYork, world.Line{})
	add("c2", world.Washington, world.Line{})
	add("c3", world.Helsinki, world.Line{})
	add("e1", world.NewYork, world.Line{})
	add("e2", world.NewYork, world.Line{})
	add("e3", world.Helsinki, r.setup.line)
	add(hostDNS, world.Washington, world.Line{})
	add(hostOrigin, world.NewYork, world.Line{})
	add("clientnyc", world.NewYork, world.Line{})
	add("clienthel", world.Helsinki, world.Line{})
	add(hostClone, world.NewYork, world.Line{})
	return all
}

// addressOf is that of a host.
func (r *rig) addressOf(name string) string {
	for _, h := range r.hosts() {
		if h.Name == name {
			return h.Addr.String()
		}
	}
	return ""
}

// build makes the world and the origin. The rig is to be closed after an error too, unless it is
// nil.
func build(ctx context.Context, o Options, s setup) (r *rig, err error) {
	if s.controls == 0 {
		s.controls = 3
	}
	if s.disk == "" {
		s.disk = "1GiB"
	}
	if s.disconnected == 0 {
		s.disconnected = 10 * time.Second
	}
	r = &rig{options: o, setup: s, objects: allObjects(), check: newChecker(s.disconnected),
		running: map[string]*world.Process{}, sites: map[string]string{},
		grown: map[string]int{}, urgent: map[string]chan string{}, quiet: map[string]bool{}}
	r.origin = newOrigin(append(floodObjects(), r.objects...)...)
	if s.groups > 0 {
		r.objects = r.objects[:s.groups*inGroup]
	}
	r.origin.slow(s.delay)
	if r.world, err = world.New(1); err != nil {
		return nil, err
	}
	if err := removeStale(); err != nil {
		return r, err
	}
	if r.dir, err = os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid())); err != nil {
		return r, err
	}
	for _, h := range r.hosts() {
		if err := r.world.Add(h); err != nil {
			return r, err
		}
	}
	l, err := r.world.Listen(ctx, hostOrigin, "tcp", net.JoinHostPort(r.addressOf(hostOrigin), "80"))
	if err != nil {
		return r, err
	}
	go r.origin.serve(l) // until the server is closed
	for _, name := range append(controls(), append(edges(), hostDNS, hostClone)...) {
		if err := r.configure(name); err != nil {
			return r, err
		}
	}
	if s.credential {
		return r, r.limit(ctx, "e2")
	}
	return r, nil
}

func (r *rig) config(host string) string { return filepath.Join(r.dir, host, "fleet.yaml") }
func (r *rig) log(host string) string    { return filepath.Join(r.dir, host+".log") }

// start runs kaiku on a host.
func (r *rig) start(host string) error {
	args := []string{r.options.Kaiku, "serve", "--config", r.config(host), "--node", nodeOf(host)}
	if slices.Contains(controls(), host) {
		args = append(args, "--log-level", "debug") // tells who leads
	}
	// What is mounted is seen by this process alone, as ip gives each its own mounts, and goes with
	// it.
	if mount := r.mount(host); mount != "" {
		args = append([]string{"sh", "-c", mount + ` && exec "$@"`, "sh"}, args...)
	}
	p, err := r.world.Start(host, r.log(host), args...)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[host] = p
	return nil
}

func (r *rig) process(host string) *world.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running[host]
}

// kill ends what a host runs, at once.
func (r *rig) kill(hosts ...string) {
	var ends sync.WaitGroup
	for _, h := range hosts {
		if p := r.process(h); p != nil {
			ends.Go(func() { p.Stop(syscall.SIGKILL, time.Second) })
		}
	}
	ends.Wait()
}

// startAll starts hosts.
func (r *rig) startAll(hosts ...string) error {
	var err error
	for _, h := range hosts {
		err = errors.Join(err, r.start(h))
	}
	return err
}

// signal sends a signal to what hosts run.
func (r *rig) signal(s syscall.Signal, hosts ...string) error {
	var err error
	for _, h := range hosts {
		err = errors.Join(err, r.process(h).Signal(s))
	}
	return err
}

// cut cuts each host of one side from each of the other, or mends that. Clients and the origin are
// on no side.
func (r *rig) cut(cut bool, one, other []string) error {
	var err error
	for _, a := range one {
		for _, b := range other {
			if a != b {
				err = errors.Join(err, r.world.SetLink(a, b, func(l *world.Link) { l.Cut = cut }))
			}
		}
	}
	return err
}

// fleet are all hosts of the fleet but some.
func (r *rig) fleet(but ...string) []string {
	all := append(controls()[:r.setup.controls], append(edges(), hostDNS)...)
	return slices.DeleteFunc(all, func(h string) bool { return slices.Contains(but, h) })
}

// mend takes all cuts back.
func (r *rig) mend() error {
	err := r.world.SetLinks("", func(l *world.Link) { l.Cut = false })
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.quiet)
	return err
}

// isolate cuts edges off from all others, but clients and the origin.
func (r *rig) isolate(hosts ...string) error {
	r.hush(hosts...)
	return r.cut(true, hosts, r.fleet(hosts...))
}

// hush has nobody ask hosts for the quiet objects until all is mended, so that what they have of
// these stays as it is.
func (r *rig) hush(hosts ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range hosts {
		r.quiet[h] = true
	}
}

// leader is the control node that last said that it leads the log of purges, in its log.
func (r *rig) leader() (string, error) {
	var who, last string
	for _, c := range controls()[:r.setup.controls] {
		b, err := os.ReadFile(r.log(c))
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(b)) {
			if !strings.Contains(line, "new stream leader for") || !strings.Contains(line, "PURGES") {
				continue
			}
			if _, after, ok := strings.Cut(line, "time="); ok {
				when, _, _ := strings.Cut(after, " ")
				if when > last {
					who, last = c, when
				}
			}
		}
	}
	if who == "" {
		return "", errors.New("no control node says that it leads the log of purges")
	}
	return who, nil
}

// clientOf is the host of those who read from a host.
func clientOf(host string) string {
	if host == "e3" {
		return "clienthel"
	}
	return "clientnyc"
}

// admin calls the admin API of an edge, from its own machine. It returns the status too.
func (r *rig) admin(ctx context.Context, host, method, path string, in, out any) (int, error) {
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network,
		addr string) (net.Conn, error) {
		return r.world.Dial(ctx, host, network, addr)
	}}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1:9080"+path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := t.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return resp.StatusCode, err
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, fmt.Errorf("%s: %s", resp.Status, shorten(string(b)))
	}
	if out == nil {
		return resp.StatusCode, nil
	}
	return resp.StatusCode, json.Unmarshal(b, out)
}

// close ends everything.
func (r *rig) close() error {
	_ = r.origin.server.Close()
	r.mu.Lock()
	for _, p := range r.running {
		_ = p.Signal(syscall.SIGKILL) // nothing is to be kept, and a paused one ends too
	}
	r.mu.Unlock()
	err := r.world.Close()
	if r.dir == "" {
		return err
	}
	if r.options.Keep != "" {
		logs, bad := filepath.Glob(filepath.Join(r.dir, "*.log"))
		err = errors.Join(err, bad, os.MkdirAll(r.options.Keep, 0o755))
		for _, name := range logs {
			b, bad := os.ReadFile(name)
			err = errors.Join(err, bad, os.WriteFile(filepath.Join(r.options.Keep, filepath.Base(name)), b, 0o644))
		}
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// pause waits, or until the run is ended.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
