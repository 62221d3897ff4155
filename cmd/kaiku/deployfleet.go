package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// deployFleet queries the nodes of the running fleet, through their own listeners.
type deployFleet struct {
	fleet  *config.Fleet
	tokens []string   // of the admin API, from this machine
	had    nodeTokens // the tokens that nodes had before the deploy
	key    *fleet.Key // nil if there is no control plane
}

// lookTime limits one query of a node.
const lookTime = 10 * time.Second

// onNode returns the address under which the node itself reaches one of its listeners.
func onNode(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Healthy returns nil if the node is healthy in each of its roles.
func (d *deployFleet) Healthy(ctx context.Context, node string, dial deploy.DialFunc) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	n := d.fleet.Node(node)
	if n.Has(config.RoleControl) {
		if err := d.controlHealthy(ctx, n, dial); err != nil {
			return fmt.Errorf("control plane: %w", err)
		}
	}
	if n.Has(config.RoleGeoDNS) {
		for _, z := range d.fleet.GeoDNS.Zones {
			if err := askSOA(ctx, dial, onNode(d.fleet.DNSListen()[0]), z.Name); err != nil {
				return fmt.Errorf("name server: %w", err)
			}
		}
	}
	if n.Has(config.RoleEdge) {
		return d.edgeHealthy(ctx, n, dial)
	}
	return nil
}

func (d *deployFleet) edgeHealthy(ctx context.Context, n *config.Node, dial deploy.DialFunc) error {
	status, body, err := d.get(ctx, dial, "GET", onNode(d.fleet.EdgeOf(n).HTTP),
		cmp.Or(d.fleet.GeoDNS.Health.Path, "/.kaiku/health"), "")
	if err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	if status != http.StatusOK {
		return fmt.Errorf("edge: its health check answers %d: %.200s", status, body)
	}
	st, err := d.status(ctx, n, dial)
	if err != nil || d.key == nil {
		return err
	}
	for _, s := range st.Nodes {
		if s.Node == n.Name && s.Live && s.Ready {
			return nil
		}
	}
	return errors.New("edge: not ready in the registry yet")
}

// Drain sets or removes the drain mark of a node, through the node's own admin API. changed is
// false if the node was in that state already.
func (d *deployFleet) Drain(ctx context.Context, node string, dial deploy.DialFunc, drain bool) (changed bool,
	err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	n := d.fleet.Node(node)
	st, err := d.status(ctx, n, dial)
	if err != nil {
		return false, err
	}
	for _, s := range st.Nodes {
		if s.Node == node && s.Draining == drain {
			return false, nil
		}
	}
	method := http.MethodDelete
	if drain {
		method = http.MethodPut
	}
	status, body, err := d.askAdmin(ctx, n, dial, method, "/v1/nodes/"+node+"/drain")
	switch {
	case err != nil:
		return false, err
	case status == http.StatusConflict:
		return false, deploy.ErrNoDrain
	case status != http.StatusOK:
		return false, d.refused(status, body)
	}
	return true, nil
}

// refused returns the error for an error response of a node's admin API.
func (d *deployFleet) refused(status int, body []byte) error {
	err := fmt.Errorf("the admin API answers %d: %.200s", status, bytes.TrimSpace(body))
	token := d.fleet.Secrets.AdminToken
	switch {
	case status == http.StatusUnauthorized && d.tokens == nil:
		return fmt.Errorf("%w: %w: the node needs a token, but this machine has none: set secrets.admin_token to a file with the token", deploy.ErrRefused, err)
	case status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %w: the node accepts no token in %s; put its token into that file, or restart kaiku.service on the node", deploy.ErrRefused, err, token)
	case status == http.StatusForbidden:
		return fmt.Errorf("%w: %w: the token in %s has too few scopes", deploy.ErrRefused, err, token)
	case status >= 400 && status < 500:
		return fmt.Errorf("%w: %w", deploy.ErrRefused, err)
	}
	return err
}

func (d *deployFleet) status(ctx context.Context, n *config.Node, dial deploy.DialFunc) (admin.Status, error) {
	var st admin.Status
	status, body, err := d.askAdmin(ctx, n, dial, "GET", "/v1/status")
	switch {
	case err != nil:
		return st, fmt.Errorf("query the admin API: %w", err)
	case status != http.StatusOK:
		return st, d.refused(status, body)
	}
	if err := json.Unmarshal(body, &st); err != nil {
		return st, fmt.Errorf("read the response of the admin API: %w", err)
	}
	return st, nil
}

// askAdmin sends a request to the admin API of a node. It tries the tokens of this machine, then
// those that the node had before this deploy, until the node accepts one.
func (d *deployFleet) askAdmin(ctx context.Context, n *config.Node, dial deploy.DialFunc, method,
	path string) (status int, body []byte, err error) {
	tokens := slices.Concat(d.tokens, d.had.of(n.Name))
	if len(tokens) == 0 {
		tokens = []string{""}
	}
	for _, token := range tokens {
		status, body, err = d.get(ctx, dial, method, onNode(d.fleet.EdgeOf(n).Admin), path, token)
		if err != nil || status != http.StatusUnauthorized {
			break
		}
	}
	return status, body, err
}

// get sends a request over a connection of its own.
func (d *deployFleet) get(ctx context.Context, dial deploy.DialFunc, method, addr, path, token string) (int, []byte,
	error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Transport{DialContext: dial, DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp.StatusCode, body, err
}

// lastError has the result of the last attempt: nil if that succeeded. A timeout does not replace
// another error, because that says more.
type lastError struct {
	mu  sync.Mutex
	err error
}

func (l *lastError) set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil || !errors.Is(err, context.DeadlineExceeded) { // a timeout says less than the error before it
		l.err = err
	}
}

func (l *lastError) get() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// askSOA queries a name server for a zone's SOA record over TCP. It returns nil if the server has
// the zone.
func askSOA(ctx context.Context, dial deploy.DialFunc, addr, zone string) error {
	name, err := dnsmessage.NewName(zone + ".")
	if err != nil {
		return err
	}
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 1},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET}}}
	packed, err := q.Pack()
	if err != nil {
		return err
	}
	c, err := dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })() // a channel over SSH has no deadlines
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
		return err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return err
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	if err != nil {
		return err
	}
	if h.RCode != dnsmessage.RCodeSuccess || !h.Authoritative {
		return fmt.Errorf("zone %s: %v, authoritative %v", zone, h.RCode, h.Authoritative)
	}
	return nil
}
