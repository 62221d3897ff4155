package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// checkedPaths is the number of paths of a purgeCheck. They are of three kinds, in turn.
const checkedPaths = 6

// kindsOfCheck has the Cache-Control of each kind.
var kindsOfCheck = []string{
	"max-age=1000, must-revalidate", "max-age=1000", "max-age=1000, stale-while-revalidate=1000",
}

// perPath has a version for each path.
type perPath [checkedPaths]atomic.Int64

// purgeCheck checks the promise of purges: an edge that is reported to have applied a purge serves
// no version from before the purge was requested.
type purgeCheck struct {
	t        *testing.T
	nodes    map[string]*testNode
	versions perPath // of the origin
	// hard and soft have the oldest version that each edge may serve after purges of that kind.
	hard, soft map[string]*perPath

	answers, purges, stale atomic.Int64
	broken                 atomic.Int64
}

// TestPurgesHold sends random requests and purges to a region with a shield and a control node.
// KAIKU_PURGE_CHECK sets how long. KAIKU_PURGE_SEED repeats the choices of a run.
func TestPurgesHold(t *testing.T) {
	t.Parallel()
	d, err := time.ParseDuration(cmp.Or(os.Getenv("KAIKU_PURGE_CHECK"), "5s"))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("KAIKU_PURGE_SEED"), strconv.FormatUint(rand.Uint64(), 10)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	c := &purgeCheck{t: t, hard: map[string]*perPath{}, soft: map[string]*perPath{}}
	c.start()
	end := time.Now().Add(d)
	var work sync.WaitGroup
	stream := seed
	run := func(step func(*rand.Rand)) {
		stream++
		rng := rand.New(rand.NewPCG(seed, stream))
		work.Go(func() {
			for time.Now().Before(end) && c.broken.Load() < 5 {
				step(rng)
			}
		})
	}
	for range 4 {
		run(c.purge)
	}
	for name := range c.nodes {
		for range 6 {
			run(func(rng *rand.Rand) { c.ask(name, rng) })
		}
	}
	work.Wait()
	t.Logf("seed %d: %d answers, %d of them stale while revalidated, %d purges",
		seed, c.answers.Load(), c.stale.Load(), c.purges.Load())
	if c.answers.Load() == 0 || c.purges.Load() == 0 {
		t.Error("nothing was checked")
	}
}

// start starts the origin and the nodes.
func (c *purgeCheck) start() {
	c.nodes = startPurgedRegion(c.t, c.origin, "shield: us1", "eu1", "eu2", "us1")
	for name := range c.nodes {
		c.hard[name], c.soft[name] = &perPath{}, &perPath{}
	}
}

// startPurgedRegion starts a control node, the edges of a region, and us1. more is added to
// the origin in the fleet file. When it returns, the edges trust their caches and fetch from
// each other.
func startPurgedRegion(t *testing.T, answer http.HandlerFunc, more string, names ...string) map[string]*testNode {
	t.Helper()
	dir := t.TempDir()
	mux := http.NewServeMux()
	mux.Handle("/", answer)
	mux.HandleFunc("/peers/", func(http.ResponseWriter, *http.Request) {})
	o := httptest.NewServer(mux)
	t.Cleanup(o.Close)
	text := fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["%s"], %s } }]
edge: { disk: 128MiB, memory: 16MiB }
secrets: { fleet_key: fleet.key }
nodes:
  c1: { roles: [control], addresses: [127.0.0.9], admin: %q, control: { listen: %q, data: %q } }
`, o.URL, more, freeport.Addr(t), freeport.Addr(t), filepath.Join(dir, "c1"))
	nodes := map[string]*testNode{}
	for i, name := range names {
		n := &testNode{http: freeport.Addr(t), admin: freeport.Addr(t), peer: freeport.Addr(t)}
		nodes[name] = n
		text += fmt.Sprintf("  %s: { roles: [edge], region: %s, location: [0, 0], addresses: [127.0.0.%d], "+
			"edge: { http: %q, admin: %q, peer: %q, data: %q } }\n",
			name, name[:2], i+1, n.http, n.admin, n.peer, filepath.Join(dir, name))
	}
	config := filepath.Join(dir, "fleet.yaml")
	writeFiles(t, dir, map[string]string{"fleet.yaml": text, "fleet.key": regionKey})
	stops := []func(){runNode(t, config, "c1")}
	t.Cleanup(func() { // at the same time, so that none waits for another
		var work sync.WaitGroup
		for _, stop := range stops {
			work.Go(stop)
		}
		work.Wait()
	})
	for name, n := range nodes {
		stops = append(stops, runNode(t, config, name))
		transport := &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}
		n.client = &http.Client{Timeout: time.Minute, Transport: transport}
		t.Cleanup(transport.CloseIdleConnections)
	}
	for name, n := range nodes {
		testwait.Until(t, name+" trusts what it has", func() bool {
			resp, err := n.client.Get("http://" + n.http + "/.kaiku/health")
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
	tries := 0
	for name, n := range nodes {
		for _, other := range names {
			if name == other || name == "us1" { // the shield fetches from the origin
				continue
			}
			testwait.Until(t, name+" asks "+other, func() bool {
				tries++
				resp, _ := n.ask(t, fmt.Sprint("/peers/", tries))
				return strings.Contains(strings.Join(resp.Header["Cache-Status"], ""), other)
			})
		}
	}
	return nodes
}

// ask requests a path. It returns the response and its body.
func (n *testNode) ask(t *testing.T, path string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.http+path, nil)
	if err != nil {
		t.Error(err)
		return &http.Response{}, ""
	}
	r.Host = "www.example.com"
	resp, err := n.client.Do(r)
	if err != nil {
		t.Error(err)
		return &http.Response{}, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	return resp, string(body)
}

// purge purges through the node, and waits for all edges.
func (n *testNode) purge(t *testing.T, body string) {
	t.Helper()
	resp, err := n.client.Post("http://"+n.admin+"/v1/purge?wait=all", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var done purge.Response
	err = json.NewDecoder(resp.Body).Decode(&done)
	lacks := slices.ContainsFunc(done.Edges, func(p purge.Progress) bool { return !p.Applied })
	if err != nil || resp.StatusCode != http.StatusOK || lacks {
		t.Fatalf("purge: %d, %v, %+v", resp.StatusCode, err, done)
	}
}

// origin answers after a delay, with the version that the path had when the request arrived.
func (c *purgeCheck) origin(w http.ResponseWriter, r *http.Request) {
	i, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil || i < 0 || i >= checkedPaths {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	v := c.versions[i].Load()
	time.Sleep(time.Duration(rand.IntN(3)) * time.Duration(rand.IntN(200)) * time.Millisecond)
	h := w.Header()
	h.Set("Cache-Control", kindsOfCheck[i%len(kindsOfCheck)])
	h.Set("Etag", fmt.Sprintf(`"%d"`, v))
	h.Set("Surrogate-Key", tagOfCheck(i))
	h.Set("Content-Type", "text/plain")
	body := bytes.Repeat(fmt.Appendf(nil, "%07d\n", v), 1+i*4000) // the largest have several slices
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// tagOfCheck returns the tag of a path.
func tagOfCheck(path int) string { return "t" + strconv.Itoa(path/2) }

// purge makes new versions of some paths at the origin, and purges the old ones.
func (c *purgeCheck) purge(rng *rand.Rand) {
	time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
	first := rng.IntN(checkedPaths)
	p := purge.Request{Soft: rng.IntN(3) > 0}
	url := "http://www.example.com/" + strconv.Itoa(first)
	covers := func(i int) bool { return i == first }
	switch rng.IntN(8) {
	case 0:
		p.Prefixes = []string{url}
	case 1:
		p.All, covers = true, func(int) bool { return true }
	case 2, 3, 4:
		p.Tags, covers = []string{tagOfCheck(first)}, func(i int) bool { return tagOfCheck(i) == tagOfCheck(first) }
	default:
		p.URLs = []string{url}
	}
	least := map[int]int64{}
	for i := range checkedPaths {
		if covers(i) {
			least[i] = c.versions[i].Add(1)
		}
	}
	body, err := json.Marshal(p)
	if err != nil {
		c.t.Error(err)
		return
	}
	names := []string{"eu1", "eu2", "us1"}
	at := c.nodes[names[rng.IntN(len(names))]]
	resp, err := at.client.Post("http://"+at.admin+"/v1/purge?wait=all", "application/json", bytes.NewReader(body))
	if err != nil {
		c.fail("purge %s: %v", body, err)
		return
	}
	defer resp.Body.Close()
	var done purge.Response
	if err := json.NewDecoder(resp.Body).Decode(&done); err != nil || resp.StatusCode != http.StatusOK {
		c.fail("purge %s: %d, %v", body, resp.StatusCode, err)
		return
	}
	c.purges.Add(1)
	floors := c.hard
	if p.Soft {
		floors = c.soft
	}
	for _, e := range done.Edges {
		for i, v := range least {
			if e.Applied {
				raise(&floors[e.Node][i], v)
			}
		}
	}
}

// raise sets a number to v, unless it is higher already.
func raise(n *atomic.Int64, v int64) {
	for {
		have := n.Load()
		if have >= v || n.CompareAndSwap(have, v) {
			return
		}
	}
}

func (c *purgeCheck) fail(format string, args ...any) {
	c.broken.Add(1)
	c.t.Errorf(format, args...)
}

// ask requests a path from an edge, and checks the response.
func (c *purgeCheck) ask(name string, rng *rand.Rand) {
	i := rng.IntN(checkedPaths)
	n := c.nodes[name]
	method := http.MethodGet
	if rng.IntN(20) == 0 {
		method = http.MethodHead
	}
	r, err := http.NewRequestWithContext(c.t.Context(), method, "http://"+n.http+"/"+strconv.Itoa(i), nil)
	if err != nil {
		c.t.Error(err)
		return
	}
	r.Host = "www.example.com"
	hard, soft := c.hard[name][i].Load(), c.soft[name][i].Load()
	switch size := 8 * (1 + i*3000); rng.IntN(6) {
	case 0:
		from := rng.IntN(size/8) * 8
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, min(size, from+8*(1+rng.IntN(8000)))-1))
	case 1:
		r.Header.Set("If-None-Match", fmt.Sprintf(`"%d"`, max(0, hard-1)))
	}
	what := fmt.Sprintf("%s %s %v at %s", method, r.URL.Path, r.Header, name)
	resp, err := n.client.Do(r)
	if err != nil {
		c.fail("%s: %v", what, err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	status := resp.Header.Values("Cache-Status")
	if err != nil && (r.Header["Range"] != nil || strings.Contains(strings.Join(status, ""), "fwd=partial")) {
		return // an object that changes while its slices are fetched is cut short
	}
	if err != nil || !slices.Contains([]int{200, 206, 304}, resp.StatusCode) {
		c.fail("%s: %d, %v, %q", what, resp.StatusCode, err, status)
		return
	}
	c.answers.Add(1)
	v, err := strconv.ParseInt(strings.Trim(resp.Header.Get("Etag"), `"`), 10, 64)
	if err != nil || !bytes.Equal(body, bytes.Repeat(fmt.Appendf(nil, "%07d\n", v), len(body)/8)) {
		c.fail("%s: a body that is not of version %q", what, resp.Header["Etag"])
		return
	}
	revalidated := len(status) > 0 && strings.HasSuffix(status[len(status)-1], "; detail=stale-while-revalidate")
	if revalidated {
		c.stale.Add(1)
	}
	if v < hard || v < soft && !(revalidated && i%len(kindsOfCheck) == 2) {
		c.fail("%s: version %d after a hard purge of %d and a soft one of %d: %q", what, v, hard, soft, status)
	}
}
