package origin

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// seen is the Host and the SNI of a request.
type seen struct{ host, sni string }

// originNames are configurations of an origin, and what its servers get.
var originNames = []struct {
	name, url, host, sni string
	edges                bool // the servers are edges
	want                 seen
	probed               string // Host of probes if it differs
}{
	{name: "https, a name", url: "https://origin.test", want: seen{"origin.test", "origin.test"}},
	{name: "https, a name and the usual port", url: "https://origin.test:443",
		want: seen{"origin.test", "origin.test"}},
	{name: "https, a name and a port", url: "https://origin.test:8443",
		want: seen{"origin.test:8443", "origin.test"}},
	{name: "https, a name in another form", url: "https://Origin.TEST.", want: seen{"origin.test", "origin.test"}},
	{name: "https, an address", url: "https://192.0.2.1", want: seen{"www.example", "www.example"},
		probed: "probe.example"},
	{name: "https, an address of IPv6", url: "https://[2001:db8::1]:8443", want: seen{"www.example", "www.example"},
		probed: "probe.example"},
	{name: "http, a name", url: "http://origin.test", want: seen{host: "www.example"}, probed: "probe.example"},

	{name: "client, https", url: "https://origin.test:8443", host: ClientHost,
		want: seen{"www.example", "origin.test"}, probed: "probe.example"},
	{name: "client, https, an address", url: "https://192.0.2.1", host: ClientHost,
		want: seen{"www.example", "www.example"}, probed: "probe.example"},
	{name: "client, http", url: "http://origin.test", host: ClientHost, want: seen{host: "www.example"},
		probed: "probe.example"},
	{name: "a host, https", url: "https://origin.test", host: "shop.example",
		want: seen{"shop.example", "shop.example"}},
	{name: "a host, https, an address", url: "https://192.0.2.1", host: "shop.example",
		want: seen{"shop.example", "shop.example"}},
	{name: "a host, http", url: "http://origin.test", host: "shop.example", want: seen{host: "shop.example"}},

	{name: "sni", url: "https://origin.test", sni: "cert.example", want: seen{"origin.test", "cert.example"}},
	{name: "sni, client", url: "https://origin.test", host: ClientHost, sni: "cert.example",
		want: seen{"www.example", "cert.example"}, probed: "probe.example"},
	{name: "sni, a host", url: "https://origin.test", host: "shop.example", sni: "cert.example",
		want: seen{"shop.example", "cert.example"}},
	{name: "sni, an address", url: "https://192.0.2.1", sni: "cert.example",
		want: seen{"www.example", "cert.example"}, probed: "probe.example"},

	{name: "an edge", url: "https://edge.test", edges: true, want: seen{"www.example", "hel1"},
		probed: "probe.example"},
}

// Requests and probes have the right Host and SNI for each configuration.
func TestHostAndTLSName(t *testing.T) {
	requests, probes := make(chan seen, 1), make(chan seen, 1)
	answer := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := seen{host: r.Host}
		if r.TLS != nil {
			s.sni = r.TLS.ServerName
		}
		if r.URL.Path == "/health" {
			probes <- s
			return
		}
		requests <- s
	})
	plain, secure := httptest.NewServer(answer), httptest.NewUnstartedServer(answer)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer plain.Close()
	defer secure.Close()
	for _, c := range originNames {
		t.Run(c.name, func(t *testing.T) {
			to := secure
			if c.url[:5] == "http:" {
				to = plain
			}
			server := serverAt(t, c.url)
			if c.edges {
				server.ServerName = "hel1"
			}
			p := startPool(t, &Pool{Servers: []Server{server}, Host: c.host, SNI: c.sni, Relays: c.edges,
				Health: &Health{Path: "/health", Host: "probe.example", Interval: time.Hour, Timeout: time.Minute},
				TLS:    &tls.Config{InsecureSkipVerify: true}, // TestTLSName tests verification
				Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, to.Listener.Addr().String())
				}})
			probed := c.want
			if c.probed != "" {
				probed.host = c.probed
			}
			if c.want.sni == "www.example" { // the Host of the request
				probed.sni = probed.host
			}
			if got := <-probes; got != probed {
				t.Errorf("a probe has %q, want %q", got, probed)
			}
			if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
				t.Fatal(err)
			}
			if got := <-requests; got != c.want {
				t.Errorf("a request has %q, want %q", got, c.want)
			}
		})
	}
}
