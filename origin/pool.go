// Package origin is where misses are fetched: the servers behind a site.
//
// A Pool sends a request to one of its servers. An idempotent request without a body that could not be sent, or got no answer, goes
// to the next server; backup servers come last. The context that a request carries ends it, its body included.
package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"
)

// Server is one origin server.
type Server struct {
	URL    *url.URL // scheme http or https, host and port; nothing else counts
	Weight int      // share of the requests; 0 means 1
	Backup bool     // used only when every other failed
}

// Pool is the origin of a site. The fields are set before Start and not changed after.
type Pool struct {
	Servers []Server
	// Host is sent as Host and, over TLS, as SNI; "" means what the request has.
	Host             string
	Retries          int           // further servers that are tried; the fleet file says 2
	ConnectTimeout   time.Duration // TCP and TLS; 0 means 5 s
	FirstByteTimeout time.Duration // from the request sent to the header block; 0 means 30 s
	// Dial connects to an address; nil means a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	turn  atomic.Uint64
	order []*backend // each as often as its weight
	spare []*backend
}

// backend is a server and its connections.
type backend struct {
	server    Server
	addr      string
	transport *http.Transport
}

// Start makes the Pool ready.
func (p *Pool) Start() error {
	for _, s := range p.Servers {
		if s.URL == nil || s.URL.Host == "" || s.URL.Scheme != "http" && s.URL.Scheme != "https" {
			return fmt.Errorf("origin server %q: want http://host[:port] or https://host[:port]", s.URL)
		}
		b := &backend{server: s, addr: address(s.URL)}
		b.transport = p.newTransport(b.addr)
		if s.Backup {
			p.spare = append(p.spare, b)
			continue
		}
		for range max(1, s.Weight) {
			p.order = append(p.order, b)
		}
	}
	if len(p.order)+len(p.spare) == 0 {
		return errors.New("no origin server")
	}
	return nil
}

func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// newTransport makes the connections of one server. They all go to addr, whatever host a request names: that one becomes Host and SNI.
func (p *Pool) newTransport(addr string) *http.Transport {
	connect := p.ConnectTimeout
	if connect == 0 {
		connect = 5 * time.Second
	}
	first := p.FirstByteTimeout
	if first == 0 {
		first = 30 * time.Second
	}
	dial := p.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: connect}).DialContext
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connect)
			defer cancel()
			return dial(ctx, network, addr)
		},
		TLSHandshakeTimeout:   connect,
		ResponseHeaderTimeout: first,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		DisableCompression:    true, // bodies are passed on as they are
		MaxIdleConnsPerHost:   64,
		MaxIdleConns:          256,
		IdleConnTimeout:       90 * time.Second,
		// A header block larger than this is an error of the origin.
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// Close closes the connections that are idle.
func (p *Pool) Close() {
	for _, b := range slices.Concat(p.order, p.spare) {
		b.transport.CloseIdleConnections()
	}
}

// RoundTrip sends a request whose URL holds the target's path and query; scheme and host are the server's. The response's body is the caller's to close.
func (p *Pool) RoundTrip(r *http.Request) (*http.Response, error) {
	var errs []error
	for _, b := range p.candidates(r) {
		resp, err := b.transport.RoundTrip(p.request(r, b))
		if err == nil {
			return resp, nil
		}
		errs = append(errs, fmt.Errorf("origin %s: %w", b.addr, err))
		if r.Context().Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// candidates are the servers to try, in their order.
func (p *Pool) candidates(r *http.Request) []*backend {
	var out []*backend
	turn := p.turn.Add(1)
	for i := range p.order {
		if b := p.order[(turn+uint64(i))%uint64(len(p.order))]; !slices.Contains(out, b) {
			out = append(out, b)
		}
	}
	out = append(out, p.spare...)
	tries := 1
	if retryable(r) {
		tries += p.Retries
	}
	return out[:min(len(out), tries)]
}

// retryable says whether a request may be sent twice (RFC 9110, 9.2.2).
func retryable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return r.Body == nil || r.Body == http.NoBody
	}
	return false
}

// request makes the request as it goes to one server.
func (p *Pool) request(r *http.Request, b *backend) *http.Request {
	out := r.Clone(r.Context())
	if p.Host != "" {
		out.Host = p.Host
	}
	out.URL.Scheme = b.server.URL.Scheme
	out.URL.Host = b.server.URL.Host
	if out.URL.Scheme == "https" && out.Host != "" {
		out.URL.Host = out.Host // the transport takes SNI and the name to verify from here
	}
	return out
}

// IsTimeout says whether a RoundTrip failed because a server did not answer in time: 504 rather than 502 (RFC 9110, 15.6.5).
func IsTimeout(err error) bool {
	if all, ok := err.(interface{ Unwrap() []error }); ok { // of several servers
		return slices.ContainsFunc(all.Unwrap(), IsTimeout)
	}
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// Reason names the failure of a RoundTrip in a word, for a log or Cache-Status.
func Reason(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &dns):
		return "dns-error"
	case errors.As(err, &cert):
		return "tls-certificate-error"
	case IsTimeout(err):
		return "timeout"
	case errors.As(err, &op) && op.Op == "dial":
		return "connect-failed"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return "connection-error"
}
