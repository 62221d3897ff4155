//go:build linux

package promise

import (
	"context"
	"errors"
	"net"
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
	hostClone  = "e2b" // a second machine with the name of e2
	siteHost   = "www.example.com"
)

func edges() []string    { return []string{"e1", "e2", "e3"} }
func controls() []string { return []string{"c1", "c2", "c3"} }

// setup describes the fleet before the fault.
type setup struct {
	controls     int           // number of control nodes in the fleet file
	line         world.Line    // of e3
	delay        time.Duration // of each answer of the origin
	readers      int           // of each edge; 0 means the default
	groups       int           // of objects that are read and purged; 0 means all
	disk         string        // of edges; "" means 1GiB
	clone        bool          // e2 has a second machine, which is not started
	credential   bool          // e2 has a credential for the site www only, instead of the fleet key
	ownDisk      []string      // hosts with a file system of their own, which can lose power or fill up
	disconnected time.Duration
}

// rig is a world with a fleet, readers and purgers.
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
	sites   map[string]string // name of the site in the node's fleet file
	grown   map[string]int    // number of control nodes in the node's fleet file, if it differs from setup
	sent    int
	quiet   map[string]bool        // by host: readers don't request the quiet objects
	urgent  map[string]chan string // by host: objects to read at once
}

// dirPrefix begins the names of rigs' folders. The ID of the process follows.
const dirPrefix = "kaiku-promise-"

func (r *rig) hosts() world.Hosts {
	var all world.Hosts
	add := func(name string, at world.Place, line world.Line) {
		all.Add(world.Host{Name: name, At: at, Line: line})
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

// addressOf returns the address of a host.
func (r *rig) addressOf(name string) string { return r.hosts().Address(name) }

// build makes the world and the origin. Unless the rig is nil, it must be closed, also after an
// error.
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
	if r.dir, err = world.TempDir(dirPrefix); err != nil {
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

// start starts kaiku on a host.
func (r *rig) start(host string) error {
	args := []string{r.options.Kaiku, "serve", "--config", r.config(host), "--node", nodeOf(host)}
	if slices.Contains(controls(), host) {
		args = append(args, "--log-level", "debug") // to find out who leads
	}
	// Only this process sees the mount, because ip gives each process its own mounts. The mount
	// ends with the process.
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

// kill kills what hosts run.
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

// signal sends a signal to the processes of hosts.
func (r *rig) signal(s syscall.Signal, hosts ...string) error {
	var err error
	for _, h := range hosts {
		err = errors.Join(err, r.process(h).Signal(s))
	}
	return err
}

// cut cuts all links between the hosts of two sides, or restores them. Clients and the origin are
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

// fleet returns all hosts of the fleet except some.
func (r *rig) fleet(but ...string) []string {
	all := append(controls()[:r.setup.controls], append(edges(), hostDNS)...)
	return slices.DeleteFunc(all, func(h string) bool { return slices.Contains(but, h) })
}

// mend restores all links.
func (r *rig) mend() error {
	err := r.world.SetLinks("", func(l *world.Link) { l.Cut = false })
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.quiet)
	return err
}

// isolate cuts edges off from all others, except clients and the origin.
func (r *rig) isolate(hosts ...string) error {
	r.hush(hosts...)
	return r.cut(true, hosts, r.fleet(hosts...))
}

// hush makes readers not request the quiet objects from hosts until mend, so that the hosts keep
// the versions that they have.
func (r *rig) hush(hosts ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range hosts {
		r.quiet[h] = true
	}
}

// leader returns the control node that last logged that it leads the log of purges.
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

// clientOf returns the host of the readers of a host.
func clientOf(host string) string {
	if host == "e3" {
		return "clienthel"
	}
	return "clientnyc"
}

// close ends everything.
func (r *rig) close() error {
	_ = r.origin.server.Close()
	r.mu.Lock()
	for _, p := range r.running {
		_ = p.Signal(syscall.SIGKILL) // a stopped process ends, too, and nothing needs to be kept
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
