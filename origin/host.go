package origin

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// ClientHost as Pool.Host means that requests keep the Host that the client sent.
const ClientHost = "client"

// httpsByName reports whether u is an https URL with a DNS name. The certificate of such a server
// is for that name, and the server usually expects the name as Host.
func httpsByName(u *url.URL) bool {
	_, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" && err != nil
}

// hostFor returns the Host of requests to s. "" means the Host of the client's request.
func (p *Pool) hostFor(s Server) string {
	switch {
	case p.Relays, p.Host == ClientHost:
		return ""
	case p.Host != "":
		return p.Host
	case p.S3 != nil, httpsByName(s.URL): // a bucket's is signed
		return ownHost(s.URL)
	}
	return ""
}

// ownHost returns the Host of a server: its name, and its port unless that is the usual one.
func ownHost(u *url.URL) string {
	host, port := serverName(u.Hostname()), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" && port != map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		host += ":" + port
	}
	return host
}

// tlsNameFor returns the SNI for s, which is also the name that its certificate must have. "" means
// the Host that is sent.
func (p *Pool) tlsNameFor(s Server) string {
	switch {
	case s.ServerName != "":
		return s.ServerName
	case p.SNI != "":
		return p.SNI
	case p.Host != "" && p.Host != ClientHost:
		return serverName(p.Host)
	case httpsByName(s.URL):
		return serverName(s.URL.Hostname())
	}
	return ""
}

// request returns a copy of r for b, with the server's address, Host and the pool's secret. A
// request for a bucket is signed. The copy shares with r what an http.RoundTripper must not change.
// An error is a RequestError.
func (p *Pool) request(ctx context.Context, r *http.Request, b *backend) (*http.Request, error) {
	out, u := r.WithContext(ctx), *r.URL
	out.URL = &u
	if b.host != "" {
		out.Host = b.host
	}
	out.URL.Scheme = b.URL.Scheme
	out.URL.Host = b.URL.Host
	if out.URL.Scheme == "https" { // the transport takes SNI and the name to verify from URL.Host
		switch {
		case b.tlsName != "":
			out.URL.Host = b.tlsName
		case out.Host != "":
			out.URL.Host = serverName(out.Host)
		}
	}
	if p.Secret.Name != "" {
		out.Header = maps.Clone(out.Header)
		out.Header.Set(p.Secret.Name, p.Secret.Value)
	}
	if p.S3 != nil {
		if err := p.S3.sign(out, time.Now()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// serverName returns host without port and final dot, in lower case, so that all spellings of a
// host share connections.
func serverName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
		if strings.Contains(h, ":") {
			host = "[" + h + "]"
		}
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
