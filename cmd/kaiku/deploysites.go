package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/edge/cache"
)

const (
	siteTime  = 15 * time.Second // limits a request for a site
	siteDial  = 3 * time.Second  // limits a connection to a node's own public address
	sitesAt   = 8                // requests to a node at the same time
	siteBytes = 64 << 10         // read from a body
)

// Sites requests each site from a node. The connections start on the node itself and go to its
// public address.
func (d *deployFleet) Sites(ctx context.Context, node string, dial deploy.DialFunc) []deploy.SiteAnswer {
	n := d.fleet.Node(node)
	if !n.Has(config.RoleEdge) {
		return nil
	}
	answers := make([]*deploy.SiteAnswer, len(d.fleet.Sites))
	var all sync.WaitGroup
	room := make(chan struct{}, sitesAt)
	for i := range d.fleet.Sites {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			p := siteProbe{deployFleet: d, node: n, site: &d.fleet.Sites[i], dial: dial}
			answers[i] = p.ask(ctx)
		})
	}
	all.Wait()
	var out []deploy.SiteAnswer
	for _, a := range answers {
		if a != nil {
			out = append(out, *a)
		}
	}
	return out
}

// siteProbe requests one site from one node.
type siteProbe struct {
	*deployFleet
	node *config.Node
	site *config.Site
	dial deploy.DialFunc
}

// ask requests the site. It returns nil if the node does not have it.
func (p *siteProbe) ask(ctx context.Context) *deploy.SiteAnswer {
	host := plainHost(p.site.Hosts)
	a := &deploy.SiteAnswer{Node: p.node.Name, Site: p.site.Name}
	e := p.fleet.EdgeOf(p.node)
	scheme, listen := "http", e.HTTP
	if e.HTTPS != "" {
		switch err := p.secure(ctx, host, e.HTTPS); {
		case err == nil:
			scheme, listen = "https", e.HTTPS
		case errors.Is(err, errNoCertificate):
			a.Note = "it has no certificate for " + host + " yet"
		case errors.Is(err, errUntrusted):
			scheme, listen, a.Note = "https", e.HTTPS, err.Error()
		default:
			a.URL, a.Error = "https://"+host+"/", err.Error()
			return a
		}
	}
	a.URL = scheme + "://" + withPort(host, scheme, listen) + "/"
	status, header, body, err := p.fetch(ctx, a.URL, listen, nil)
	if err != nil {
		a.Error = err.Error()
		return a
	}
	a.Status, a.Cache = status, cacheWord(header)
	if status == http.StatusMisdirectedRequest {
		return nil
	}
	if status < 500 {
		// Ask again, past this edge's store and past other edges, which may still have another
		// configuration: only an origin can evaluate such a condition.
		condition := http.Header{"If-Unmodified-Since": {time.Now().Add(24 * time.Hour).UTC().Format(http.TimeFormat)}}
		status, header, body, err = p.fetch(ctx, a.URL, listen, condition)
	}
	switch {
	case err != nil:
		a.Error = "it serves cached responses, but a request to the origin fails: " + err.Error()
	case status >= 500:
		a.Error = p.why(ctx, a, status, header, body)
	}
	return a
}

// withPort adds the port of a listener to a host, unless it is the default port of the scheme.
func withPort(host, scheme, listen string) string {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return host
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n == map[string]int{"http": 80, "https": 443}[scheme] {
		return host
	}
	return net.JoinHostPort(host, port)
}

// connect connects to a listener at the node's public address. If the node can't reach that itself,
// as behind the NAT of some clouds, connect uses the listener's local address.
func (p *siteProbe) connect(ctx context.Context, listen string) (net.Conn, error) {
	public, own := config.Reachable(listen, p.node), onNode(listen)
	try, cancel := context.WithTimeout(ctx, siteDial)
	defer cancel()
	c, err := p.dial(try, "tcp", public)
	if err == nil || public == own {
		return c, err
	}
	if host, _, err := net.SplitHostPort(own); err != nil || !isAnyLoopback(host) {
		return nil, fmt.Errorf("connect to %s: %w", public, err)
	}
	return p.dial(ctx, "tcp", own)
}

func isAnyLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

var (
	errNoCertificate = errors.New("no certificate")
	errUntrusted     = errors.New("its certificate is not trusted on this machine")
)

// secure does a TLS handshake for a host. It returns errNoCertificate or errUntrusted if the
// certificate is the problem.
func (p *siteProbe) secure(ctx context.Context, host, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, siteTime)
	defer cancel()
	raw, err := p.connect(ctx, listen)
	if err != nil {
		return err
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{ServerName: host, InsecureSkipVerify: true}) // verified below
	defer context.AfterFunc(ctx, func() { raw.Close() })()                        // a channel over SSH has no deadlines
	if err := c.HandshakeContext(ctx); err != nil {
		if strings.Contains(err.Error(), "tls: unrecognized name") { // crypto/tls does not export its alerts
			return errNoCertificate
		}
		return fmt.Errorf("handshake of TLS: %w", err)
	}
	chain := c.ConnectionState().PeerCertificates
	opts := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return fmt.Errorf("%w: %w", errUntrusted, err)
	}
	return nil
}

// fetch sends a request to the node over a connection of its own. It reads up to siteBytes of
// the body.
func (p *siteProbe) fetch(ctx context.Context, target, listen string, fields http.Header) (status int,
	header http.Header, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, siteTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	if fields != nil {
		r.Header = fields
	}
	r.Header.Set("User-Agent", "kaiku-deploy")
	// ask has checked the certificate, by secure.
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.connect(ctx, listen) }}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v", siteTime)
		}
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, _ = io.ReadAll(io.LimitReader(resp.Body, siteBytes)) // a part is enough to describe an error
	return resp.StatusCode, resp.Header, body, nil
}

// cacheWord condenses the last member of Cache-Status (RFC 9211), which the edge adds, to one word:
// stale, hit, pass, miss or "".
func cacheWord(h http.Header) string {
	lines := h.Values("Cache-Status")
	if len(lines) == 0 {
		return ""
	}
	switch text := lines[len(lines)-1]; {
	case strings.Contains(text, "; hit") && strings.Contains(text, "; ttl=-"), strings.Contains(text, "detail=stale"):
		return "stale"
	case strings.Contains(text, "; hit"):
		return "hit"
	case strings.Contains(text, "; fwd=method"), strings.Contains(text, "; fwd=bypass"), strings.Contains(text,
		"; fwd=request"):
		return "pass"
	case strings.Contains(text, "; fwd="):
		return "miss"
	}
	return ""
}

// why returns why a response is an error, and what to do about it.
func (p *siteProbe) why(ctx context.Context, a *deploy.SiteAnswer, status int, header http.Header, body []byte) string {
	text := "its origin " + originNames(p.site)
	if a.Status != status {
		text = fmt.Sprintf("it serves cached responses, but a request to the origin gets %d: its origin %s", status, originNames(p.site))
	}
	if lines := header.Values("Cache-Status"); len(lines) == 0 || !strings.Contains(lines[len(lines)-1], "detail=") {
		return fmt.Sprintf("%s itself sends this response: %.200q", text, bytes.TrimSpace(body))
	}
	var e cache.Explanation
	query := "/v1/explain?url=" + url.QueryEscape(a.URL)
	code, answer, err := p.askAdmin(ctx, p.node, p.dial, http.MethodGet, query)
	if err != nil || code != http.StatusOK || json.Unmarshal(answer, &e) != nil || e.LastFailure == nil {
		return fmt.Sprintf("%s fails: %.200s", text, bytes.TrimSpace(body))
	}
	if text += " fails: " + e.LastFailure.Error; e.LastFailure.Hint != "" {
		text += ": " + e.LastFailure.Hint
	}
	return text
}

// originNames returns the URLs of a site's origin servers.
func originNames(s *config.Site) string {
	var out []string
	for _, server := range s.Origin.Servers {
		out = append(out, server.URL.String())
	}
	return strings.Join(out, ", ")
}
