package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// The places of the demo.
var (
	helsinki = spot{"Helsinki", geodns.Place{Lat: 60.17, Lon: 24.94}}
	newYork  = spot{"New York", geodns.Place{Lat: 40.71, Lon: -74.01}}
	virginia = spot{"Virginia", geodns.Place{Lat: 39.04, Lon: -77.49}}
)

// The networks that stand for clients in Finland and in the US, and the host of the site.
const (
	finnishNetwork = "193.166.0.0/16" // FUNET, the universities' network
	usNetwork      = "128.112.0.0/16" // Princeton University
	siteHost       = "www.example.com"
)

// demo is an origin, two edges and a name server in one process.
type demo struct {
	dir  string
	log  *slog.Logger
	site *Site

	origin, far, control net.Listener // far is the origin, at the distance of Finland
	dnsAddr              string
	moved                []string // a sentence for each address that differs from the documented one

	fleet *config.Fleet
	zones []*geodns.Zone
	nodes map[string]*edgeNode
	dns   *geodns.Server
	plane *plane
	// visited means that visitors of the demo's own look at the site.
	visited bool
}

// edgeNode is an edge of the demo that can be stopped and started.
type edgeNode struct {
	Name, HTTP, Admin, Address, Data string
	place                            spot

	mu   sync.Mutex
	stop context.CancelFunc // nil while it is stopped
	done chan error
	edge atomic.Pointer[node.Edge]
}

// running returns the edge of the node, or nil while it is stopped.
func (n *edgeNode) running() *node.Edge { return n.edge.Load() }

// fleetFile is the template of the fleet file.
const fleetFile = `# The fleet file of the demo. You can start your own from it.
sites:
  - name: www
    hosts: [www.example.com, {{hosts}}localhost]
    origin:
      servers: ["http://{{origin}}"]
    cache:
      stale_while_revalidate: 60s
      ignore_query: [utm_*]

nodes:
{{nodes}}
edge: { disk: 1GiB, memory: 64MiB }

geodns:
  listen: "{{dns}}"
  zones:
    - name: example.com
      file: example.com.zone
      edges:
        www: { ttl: 5s }
  health: { interval: 1s, timeout: 500ms }
`

const zoneFile = `$ORIGIN example.com.
$TTL 3600
@    IN SOA ns1 hostmaster 1 7200 1800 1209600 300
@    IN NS  ns1
ns1  IN A   127.0.0.1
`

// ports finds addresses for the demo's listeners.
type ports struct {
	fixed bool     // use the documented addresses if they are free; otherwise use any
	moved []string // a sentence for each address that was not free
}

// listen listens on want. If that is not free, it uses another port of the address, or of
// 127.0.0.1.
func (p *ports) listen(ctx context.Context, what, want string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(want)
	if err != nil {
		return nil, err
	}
	addrs := []string{want, host + ":0", host + ":0", "127.0.0.1:0", "127.0.0.1:0"}
	if !p.fixed {
		addrs = addrs[3:]
	}
	var failed error
	for _, addr := range addrs {
		l, err := listenBoth(ctx, addr)
		if err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		if failed != nil && p.fixed {
			why := failed.Error()
			if errors.Is(failed, syscall.EADDRINUSE) {
				why = "another program uses that address"
			}
			p.moved = append(p.moved, fmt.Sprintf("%s is at %s instead of %s: %s.", what, l.Addr(), want, why))
		}
		return l, nil
	}
	return nil, fmt.Errorf("%s: %w", what, failed)
}

// listenBoth listens on a TCP address that is free for UDP too.
func listenBoth(ctx context.Context, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	u, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, u.Close()
}

// free returns an address that a service can listen on.
func (p *ports) free(ctx context.Context, what, want string) (string, error) {
	l, err := p.listen(ctx, what, want)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// newDemo finds the addresses and writes the fleet file that everything else runs from.
func newDemo(ctx context.Context, dir string, ports *ports, log *slog.Logger) (*demo, error) {
	d := &demo{dir: dir, log: log, site: NewSite(), nodes: map[string]*edgeNode{}}
	for _, l := range []struct {
		to         *net.Listener
		what, addr string
	}{{&d.origin, "The origin", "127.0.0.13:8080"}, {&d.far, "The origin across the ocean", "127.0.0.14:8080"},
		{&d.control, "The API that stops and starts edges", "127.0.0.1:9000"}} {
		var err error
		if *l.to, err = ports.listen(ctx, l.what, l.addr); err != nil {
			return nil, err
		}
	}
	var err error
	if d.dnsAddr, err = ports.free(ctx, "The name server", "127.0.0.1:5300"); err != nil {
		return nil, err
	}
	hosts, nodes := "", ""
	for _, n := range []struct {
		name, address, admin string
		place                spot
	}{{"hel1", "127.0.0.11", "127.0.0.1:9081", helsinki}, {"nyc1", "127.0.0.12", "127.0.0.1:9082", newYork}} {
		x := &edgeNode{Name: n.name, Address: n.address, place: n.place, Data: filepath.Join(dir, n.name)}
		if x.HTTP, err = ports.free(ctx, n.name, n.address+":8080"); err != nil {
			return nil, err
		}
		if x.Admin, err = ports.free(ctx, "The admin API of "+n.name, n.admin); err != nil {
			return nil, err
		}
		d.nodes[n.name] = x
		host, _, _ := net.SplitHostPort(x.HTTP)
		if quoted := fmt.Sprintf("%q, ", host); !strings.HasPrefix(hosts, quoted) {
			hosts += quoted
		}
		nodes += fmt.Sprintf("  %s:\n    roles: [edge]\n    location: [%v, %v]\n    addresses: [%s]\n    edge: { http: %q, admin: %q, data: %s }\n",
			x.Name, n.place.Lat, n.place.Lon, x.Address, x.HTTP, x.Admin, x.Data)
	}
	fleet := strings.NewReplacer("{{hosts}}", hosts, "{{origin}}", d.origin.Addr().String(), "{{nodes}}", nodes,
		"{{dns}}", d.dnsAddr).Replace(fleetFile)
	file := filepath.Join(dir, "fleet.yaml")
	if err := errors.Join(os.WriteFile(file, []byte(fleet), 0o644),
		os.WriteFile(filepath.Join(dir, "example.com.zone"), []byte(zoneFile), 0o644)); err != nil {
		return nil, err
	}
	if d.fleet, d.zones, err = config.Load(file); err != nil {
		return nil, err
	}
	d.moved = ports.moved
	d.plane = &plane{demo: d, began: time.Now(), draining: map[string]bool{}}
	d.dns = &geodns.Server{Addr: d.fleet.DNSListen()[0], Log: log, Registry: d.plane.reported}
	return d, d.dns.Reload(d.fleet.GeoDNSConfig(d.zones))
}

// httpPart is a service that serves a handler on a listener.
type httpPart struct {
	listener net.Listener
	handler  http.Handler
}

// Listen does nothing, because the listener exists already.
func (p httpPart) Listen(context.Context) error { return nil }

// Serve answers until ctx ends.
func (p httpPart) Serve(ctx context.Context) error {
	s := &http.Server{Handler: p.handler, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// run runs all services, and calls ready once they answer. It ends when ctx ends, or when ready
// fails.
func (d *demo) run(ctx context.Context, out io.Writer, ready func(ctx context.Context) error) error {
	for _, n := range d.nodes {
		if err := d.start(ctx, n); err != nil {
			return err
		}
	}
	parts := []node.Part{
		httpPart{d.origin, d.site},
		&relay{listener: d.far, dial: oceanDial(oneWay(helsinki, virginia)), to: d.origin.Addr().String()},
		httpPart{d.control, d.controlHandler(ctx)},
		d.dns,
		node.PartFunc(func(ctx context.Context) error {
			if err := ready(ctx); err != nil {
				return err
			}
			d.printCommands(out)
			<-ctx.Done()
			return nil
		}),
		node.PartFunc(d.plane.remember),
	}
	if d.visited {
		parts = append(parts, node.PartFunc(d.visitors))
	}
	err := node.Run(ctx, parts...)
	for _, n := range d.nodes {
		err = errors.Join(err, n.halt())
	}
	return err
}

// start starts the edge of a node; its misses cross the ocean.
func (d *demo) start(ctx context.Context, n *edgeNode) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stop != nil {
		return nil
	}
	e, err := node.Standalone(d.fleet, d.fleet.Node(n.Name), oceanDial(oneWay(n.place, virginia)), d.log)
	if err != nil {
		return err
	}
	e.Purges, e.Fleet, e.ExplainDNS = d.plane, d.plane, node.ExplainDNS(d.dns)
	if err := e.Listen(ctx); err != nil {
		return err
	}
	n.edge.Store(e)
	if err := d.plane.catchUp(e); err != nil {
		d.log.Error("apply the purges that an edge has missed", "edge", n.Name, "error", err)
	}
	ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	n.done = make(chan error, 1)
	go func() { n.done <- e.Serve(ctx) }()
	return nil
}

// halt stops the edge of a node and waits for its end.
func (n *edgeNode) halt() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stop == nil {
		return nil
	}
	n.edge.Store(nil)
	n.stop()
	n.stop = nil
	return <-n.done
}

// controlHandler stops and starts edges.
func (d *demo) controlHandler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	handle := func(what string, do func(*edgeNode) error) {
		mux.HandleFunc("POST /"+what+"/{node}", func(w http.ResponseWriter, r *http.Request) {
			n := d.nodes[r.PathValue("node")]
			if n == nil {
				http.Error(w, "no such edge: the edges are hel1 and nyc1", http.StatusNotFound)
				return
			}
			if err := do(n); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			fmt.Fprintf(w, "%s: %s done\n", n.Name, what)
		})
	}
	handle("stop", (*edgeNode).halt)
	handle("start", func(n *edgeNode) error { return d.start(ctx, n) })
	return mux
}

// text is the template of the printed text.
const text = `
Kaiku demo: an origin in Virginia, an edge in Helsinki (hel1), an edge in New York (nyc1) and a name server.
All of them run in this process, on loopback addresses. Connections between places are delayed as real ones are:
a round trip takes {{Far}} between Helsinki and Virginia, and {{Near}} between New York and Virginia.{{Moved}}

  In a browser
    the site                              http://{{Hel.HTTP}}/
    the fleet, on a map                   http://{{Hel.Admin}}/
  Two visitors get a picture every two seconds: one in Finland, one in the US.

  Ask the name server which edge is nearest
    to a client in Finland
      dig @{{DNSHost}} -p {{DNSPort}} www.example.com +subnet={{Finnish}} +short    # {{Hel.Address}} (hel1)
    to a client in the US
      dig @{{DNSHost}} -p {{DNSPort}} www.example.com +subnet={{US}} +short    # {{Nyc.Address}} (nyc1)

  Get a picture twice: the second response is a hit (see Cache-Status and Age), and faster
    from hel1
      curl -sD- -o /dev/null -w '%{time_starttransfer}s\n' {{HelURL}}
    from nyc1
      curl -sD- -o /dev/null -w '%{time_starttransfer}s\n' {{NycURL}}
    from the origin, across the ocean
      curl -sD- -o /dev/null -w '%{time_starttransfer}s\n' http://{{Over}}/img/dawn.png
    from the origin, without the delay (use this URL as the origin of an edge of your own)
      curl -sD- -o /dev/null -w '%{time_starttransfer}s\n' http://{{Origin}}/img/dawn.png

  Purge the picture from both edges, by its URL or by a tag
      {{Self}} purge --admin http://{{Hel.Admin}} http://www.example.com/img/dawn.png
      {{Self}} purge --admin http://{{Hel.Admin}} --tag demo

  Read the metrics of hel1
      curl -s http://{{Hel.Admin}}/metrics | grep kaiku_

  Stop hel1: within a few seconds, the name server sends the client in Finland to nyc1. Then start it again
      curl -X POST http://{{Control}}/stop/hel1
      curl -X POST http://{{Control}}/start/hel1

  The fleet file is {{Fleet}}.
  Ctrl-C ends the demo.
`

// printCommands prints commands to try. They work when pasted.
func (d *demo) printCommands(out io.Writer) {
	hel, nyc := d.nodes["hel1"], d.nodes["nyc1"]
	url := func(n *edgeNode) string {
		_, port, _ := net.SplitHostPort(n.HTTP)
		return fmt.Sprintf("--connect-to ::%s http://%s:%s/img/dawn.png", n.HTTP, siteHost, port)
	}
	host, port, _ := net.SplitHostPort(d.dnsAddr)
	rtt := func(a, b spot) string { return (2 * oneWay(a, b)).Round(time.Millisecond).String() }
	moved := ""
	for i, line := range d.moved {
		if i == 0 {
			moved = "\n"
		}
		moved += "\n  " + line
	}
	_, err := strings.NewReplacer("{{Far}}", rtt(helsinki, virginia), "{{Near}}", rtt(newYork, virginia), "{{Moved}}",
		moved,
		"{{DNSHost}}", host, "{{DNSPort}}", port, "{{Self}}", os.Args[0], "{{Finnish}}", finnishNetwork, "{{US}}",
		usNetwork,
		"{{Hel.HTTP}}", hel.HTTP, "{{Hel.Address}}", hel.Address, "{{Hel.Admin}}", hel.Admin, "{{Nyc.Address}}",
		nyc.Address, "{{HelURL}}", url(hel), "{{NycURL}}", url(nyc),
		"{{Origin}}", d.origin.Addr().String(), "{{Over}}", d.far.Addr().String(), "{{Control}}",
		d.control.Addr().String(),
		"{{Fleet}}", filepath.Join(d.dir, "fleet.yaml")).WriteString(out, text)
	if err != nil {
		d.log.Error("print the commands of the demo", "error", err)
	}
}

// Run runs the demo until ctx ends, and prints commands to try to out. If once is set, it instead
// sends requests as a client in Finland and as a client in the USA, prints the results, and
// returns.
func Run(ctx context.Context, out io.Writer, once bool, log *slog.Logger) (err error) {
	dir, err := os.MkdirTemp("", "kaiku-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if once {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := newDemo(ctx, dir, &ports{fixed: true}, log)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if once {
		return d.once(ctx, out)
	}
	d.visited = true
	return d.run(ctx, out, func(context.Context) error { return nil })
}
