package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// visitor is a client of the demo.
type visitor struct {
	country string
	place   spot
	network string // of public addresses
	nearest string // the edge that the name server must send it to
}

// theVisitors returns the clients of the demo.
func theVisitors() []visitor {
	return []visitor{{"Finland", helsinki, finnishNetwork, "hel1"}, {"USA", newYork, usNetwork, "nyc1"}}
}

// visit is the result of a visitor's requests.
type visit struct {
	visitor
	edge           string
	cache          [2]string
	status         [2]string        // Cache-Status
	took           [2]time.Duration // to the first byte, with DNS lookup and connection
	direct         time.Duration    // the same, for a request to the origin
	originRequests int              // requests for the object that reached the origin
}

// once sends requests as both visitors, and prints the results.
func (d *demo) once(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var visits []visit
	err := d.run(ctx, io.Discard, func(ctx context.Context) error {
		defer cancel()
		for _, v := range theVisitors() {
			got, err := d.visit(ctx, v)
			if err != nil {
				return fmt.Errorf("client in %s: %w", v.country, err)
			}
			visits = append(visits, got)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return report(out, visits)
}

func report(out io.Writer, visits []visit) error {
	var errs []error
	fmt.Fprintln(out, "Time to the first byte, with DNS lookup and connection. Connections are delayed as across a real ocean.")
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "client\tedge\tfirst request\t\tsecond request\t\tdirect to the origin\trequests at the origin")
	for _, v := range visits {
		fmt.Fprintf(w, "%s\t%s\t%s\t%v\t%s\t%v\t%v\t%d\n", v.country, v.edge, v.cache[0], ms(v.took[0]), v.cache[1],
			ms(v.took[1]), ms(v.direct), v.originRequests)
		if v.edge != v.nearest {
			errs = append(errs, fmt.Errorf("client in %s was sent to %s, not to %s", v.country, v.edge, v.nearest))
		}
		if v.cache[1] != "hit" {
			errs = append(errs, fmt.Errorf("client in %s: the second request was a %s, not a hit: %s", v.country,
				v.cache[1], v.status[1]))
		}
		if v.originRequests != 1 {
			errs = append(errs, fmt.Errorf("client in %s: the origin got %d requests, not 1", v.country,
				v.originRequests))
		}
	}
	return errors.Join(append(errs, w.Flush())...)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

// visit looks up the site's name, and sends two requests to the edge in the answer and one to the
// origin.
func (d *demo) visit(ctx context.Context, v visitor) (visit, error) {
	const path = "/img/dawn.png"
	out := visit{visitor: v}
	before := d.site.count(path)
	for i := range out.cache {
		began := time.Now()
		addrs, err := geodns.Lookup(ctx, d.dnsAddr, siteHost, netip.MustParsePrefix(v.network))
		if err != nil {
			return out, err
		}
		n := d.nodeAt(addrs[0])
		if n == nil {
			return out, fmt.Errorf("the name server answered with %s, which is not the address of an edge", addrs[0])
		}
		out.edge = n.Name
		first, cacheStatus, err := firstByte(ctx, oceanDial(oneWay(v.place, n.place)), n.HTTP, path, began)
		if err != nil {
			return out, err
		}
		out.took[i], out.status[i] = first, cacheStatus
		out.cache[i] = "miss"
		if strings.Contains(cacheStatus, "; hit") {
			out.cache[i] = "hit"
		}
	}
	out.originRequests = d.site.count(path) - before
	var err error
	out.direct, _, err = firstByte(ctx, oceanDial(oneWay(v.place, virginia)), d.origin.Addr().String(), path,
		time.Now())
	return out, err
}

// look looks up the site's name as a visitor, and gets a picture.
func (d *demo) look(ctx context.Context, v visitor) error {
	ctx, cancel := context.WithTimeout(ctx, visitEvery)
	defer cancel()
	addrs, err := geodns.Lookup(ctx, d.dnsAddr, siteHost, netip.MustParsePrefix(v.network))
	if err != nil {
		return err
	}
	n := d.nodeAt(addrs[0])
	if n == nil {
		return fmt.Errorf("the name server answered with %s, which is not the address of an edge", addrs[0])
	}
	_, _, err = firstByte(ctx, oceanDial(oneWay(v.place, n.place)), n.HTTP, "/img/noon.png", time.Now())
	return err
}

func (d *demo) nodeAt(addr netip.Addr) *edgeNode {
	for _, n := range d.nodes {
		if n.Address == addr.String() {
			return n
		}
	}
	return nil
}

// firstByte gets a path over a new connection and returns the time from began to the first byte of
// the body.
func firstByte(ctx context.Context, dial node.Dialer, addr, path string, began time.Time) (time.Duration, string,
	error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn,
		error) {
		return dial(ctx, network, addr)
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+siteHost+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, "", fmt.Errorf("%s answered with %s", addr, resp.Status)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		return 0, "", err
	}
	first := time.Since(began)
	_, err = io.Copy(io.Discard, resp.Body)
	return first, resp.Header.Get("Cache-Status"), err
}
