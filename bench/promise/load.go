//go:build linux

package promise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

const (
	readersOfEdge = 3
	readEvery     = 25 * time.Millisecond
	purgeEvery    = 120 * time.Millisecond
	readLimit     = 8 * time.Second
	urgentReads   = 64 // of an edge, that may wait
)

// reader requests objects, and keeps its connections.
type reader struct {
	rig    *rig
	host   string
	client http.Client
}

func (r *rig) newReader(host string) *reader {
	x := &reader{rig: r, host: host}
	to := net.JoinHostPort(r.addressOf(host), "80")
	x.client = http.Client{Timeout: readLimit, Transport: &http.Transport{DisableCompression: true,
		MaxIdleConnsPerHost: 1, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return r.world.Dial(ctx, clientOf(host), network, to)
		}}}
	return x
}

func (x *reader) close() { x.client.CloseIdleConnections() }

// read requests an object once, and passes its version to judge.
func (x *reader) read(ctx context.Context, o object, judge func(expectation, int)) error {
	c := x.rig.check
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+siteHost+o.path, nil)
	if err != nil {
		return err
	}
	e := c.ask(nodeOf(x.host), x.host, o.path, time.Now())
	resp, err := x.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		_, _ = read(o, resp) // read to the end, so that the connection can be reused
		return errors.New(resp.Status)
	}
	version, err := read(o, resp)
	switch {
	case errors.Is(err, errTorn):
		c.torn(e, err)
	case err != nil:
		return err
	default:
		judge(e, version)
	}
	return nil
}

// isQuiet reports whether an object must not be requested from a host now.
func (r *rig) isQuiet(host string, o object) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.quiet[host] && slices.ContainsFunc(r.objects[max(0, len(r.objects)-quietGroups*inGroup):],
		func(q object) bool { return q.path == o.path })
}

// fetch requests a path, and checks nothing.
func (x *reader) fetch(ctx context.Context, path string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, urlOf(path), nil)
	if err != nil {
		return
	}
	resp, err := x.client.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // may fail
}

// run reads until ctx ends: objects that were just purged first, otherwise any.
func (x *reader) run(ctx context.Context) {
	defer x.close()
	r := x.rig
	byPath := map[string]object{}
	for _, o := range r.objects {
		byPath[o.path] = o
	}
	for ctx.Err() == nil {
		var o object
		select {
		case path := <-r.urgent[x.host]:
			o = byPath[path]
		case <-ctx.Done():
			return
		case <-time.After(readEvery):
			o = r.objects[rand.IntN(len(r.objects))]
		}
		if r.isQuiet(x.host, o) {
			continue
		}
		if err := x.read(ctx, o, r.check.answered); err != nil && ctx.Err() == nil {
			r.check.failed()
			_ = world.Pause(ctx, 50*time.Millisecond) // the loop ends with ctx
		}
	}
}

// purgeRequest is the body of POST /v1/purge.
type purgeRequest struct {
	URLs     []string `json:"urls,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	Prefixes []string `json:"prefixes,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`
	All      bool     `json:"all,omitempty"`
	Soft     bool     `json:"soft,omitempty"`
}

// purgeResponse is the answer to it.
type purgeResponse struct {
	Sequence uint64
	Edges    []struct {
		Node    string
		Applied bool
	}
}

func urlOf(path string) string { return "http://" + siteHost + path }

// anyPurge returns a purge of a random kind, and the objects that it matches. A purge of a site has
// no tags, and isn't of everything.
func (r *rig) anyPurge(ofSite bool) (purgeRequest, string, []object) {
	pick := r.objects[rand.IntN(len(r.objects))]
	var group []object
	for _, o := range r.objects {
		if o.tag == pick.tag {
			group = append(group, o)
		}
	}
	q := purgeRequest{Soft: rand.IntN(3) == 0}
	what, of := "", []object{pick}
	switch n := rand.IntN(20); {
	case n < 9:
		q.URLs, what = []string{urlOf(pick.path)}, "URL "+pick.path
	case n < 14 && !ofSite:
		q.Tags, what, of = []string{pick.tag}, "tag "+pick.tag, group
	case n < 18:
		q.Prefixes, what, of = []string{urlOf(pick.prefix)}, "prefix "+pick.prefix, group
	case n < 19 && !ofSite:
		q.All, what, of = true, "all", r.objects
	default:
		q.Hosts, what, of = []string{siteHost}, "host", r.objects
	}
	if q.Soft {
		what = "soft, " + what
	}
	return q, what, of
}

// prepare makes new versions of the objects that a purge matches. A soft purge does not bound what
// may be served stale.
func (r *rig) prepare(q purgeRequest, what, via string, of []object) *purge {
	var paths []string
	for _, o := range of {
		paths = append(paths, o.path)
	}
	versions := r.origin.bump(paths)
	r.mu.Lock()
	r.sent++
	p := &purge{number: r.sent, what: what, via: via, floors: map[string]int{}}
	r.mu.Unlock()
	for _, o := range of {
		if o.strict || !q.Soft {
			p.floors[o.path] = versions[o.path]
		}
	}
	p.sent = time.Now()
	return p
}

// purge sends a purge, and tells the checker the result. If wait is not 0, it waits that long until
// all edges have applied it. It returns the edges that have.
func (r *rig) purge(ctx context.Context, q purgeRequest, what, via string, of []object,
	wait time.Duration) (applied []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait+10*time.Second)
	defer cancel()
	p := r.prepare(q, what, via, of)
	path := "/v1/purge"
	if wait > 0 {
		path += "?wait=all&limit=" + wait.String()
	}
	var answer purgeResponse
	if _, err := r.world.Call(ctx, via, "POST", "http://127.0.0.1:9080"+path, q, &answer); err != nil {
		return nil, err
	}
	now := time.Now()
	p.seq = answer.Sequence
	r.check.ack(p, now)
	for _, e := range answer.Edges {
		if e.Applied {
			applied = append(applied, e.Node)
			r.check.apply(p, e.Node, now)
			r.hurry(e.Node, of)
		}
	}
	return applied, nil
}

// hurry makes readers read some objects at once, from all machines of an edge.
func (r *rig) hurry(node string, of []object) {
	for host, queue := range r.urgent {
		if nodeOf(host) != node {
			continue
		}
		for _, o := range of[:min(len(of), inGroup)] {
			select {
			case queue <- o.path:
			default: // enough are waiting already
			}
		}
	}
}

// purger sends purges to one edge until ctx ends.
func (r *rig) purger(ctx context.Context, via string) {
	for world.Pause(ctx, purgeEvery/2+rand.N(purgeEvery)) == nil {
		q, what, of := r.anyPurge(r.setup.credential && via == "e2")
		wait := []time.Duration{0, 0, 0, 1500 * time.Millisecond, 1500 * time.Millisecond, 1500 * time.Millisecond,
			1500 * time.Millisecond, 1500 * time.Millisecond, 12 * time.Second}[rand.IntN(9)]
		if _, err := r.purge(ctx, q, what, via, of, wait); err != nil && ctx.Err() == nil {
			r.check.refuse(shorten(err.Error()))
		}
	}
}

// load starts reads and purges. The returned function ends them.
func (r *rig) load(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	hosts := edges()
	if r.setup.clone {
		hosts = append(hosts, hostClone)
	}
	for _, h := range hosts {
		r.urgent[h] = make(chan string, urgentReads)
	}
	readers := r.setup.readers
	if readers == 0 {
		readers = readersOfEdge
	}
	for _, h := range hosts {
		for range readers {
			all.Go(func() { r.newReader(h).run(ctx) })
		}
	}
	for _, e := range edges() {
		all.Go(func() { r.purger(ctx, e) })
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// together waits until all edges have applied one purge through each edge.
func (r *rig) together(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the fleet was not together within %v", limit))
	defer cancel()
	for _, via := range edges() {
		for {
			q, what, of := r.anyPurge(true)
			applied, err := r.purge(ctx, q, what, via, of, 2*time.Second)
			if err == nil && len(applied) == len(edges()) {
				break
			}
			if err == nil {
				err = fmt.Errorf("purged, and applied by %v only", applied)
			}
			if world.Pause(ctx, 100*time.Millisecond) != nil {
				return fmt.Errorf("%w: purges at %s: %w", context.Cause(ctx), via, err)
			}
		}
	}
	return nil
}

// sweep reads every object from every edge at the end, twice if the first read fails.
func (r *rig) sweep(ctx context.Context) error {
	var failed error
	for _, e := range edges() {
		x := r.newReader(e)
		for _, o := range append(floodObjects(), r.objects...) {
			err := x.read(ctx, o, r.check.last)
			for try := 0; err != nil && try < 20 && world.Pause(ctx, 250*time.Millisecond) == nil; try++ {
				err = x.read(ctx, o, r.check.last)
			}
			if err != nil && failed == nil {
				failed = fmt.Errorf("read %s from %s: %w", o.path, e, err)
			}
		}
		x.close()
	}
	return failed
}
