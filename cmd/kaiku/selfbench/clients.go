package selfbench

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// tlsConfig is that of clients. The node's certificate was made for this run.
func tlsConfig() *tls.Config { return &tls.Config{ServerName: host, InsecureSkipVerify: true} }

// client returns a client for a protocol, and the beginning of its URLs.
func (b *bench) client(protocol string) (client *http.Client, base string) {
	to := func(ctx context.Context, network, _ string) (net.Conn, error) {
		addr := b.node.https
		if protocol == "http1" {
			addr = b.node.http
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	if protocol == "http3" {
		t := &http3.Transport{TLSClientConfig: tlsConfig(),
			Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				return quic.DialAddr(ctx, b.node.https, tc, qc)
			}}
		return &http.Client{Transport: t, Timeout: time.Minute}, "https://" + host
	}
	t := &http.Transport{DialContext: to, TLSClientConfig: tlsConfig(), MaxIdleConnsPerHost: clients,
		DisableCompression: true, Protocols: &http.Protocols{}}
	t.Protocols.SetHTTP1(protocol != "http2")
	t.Protocols.SetHTTP2(protocol == "http2")
	base = "https://" + host
	if protocol == "http1" {
		base = "http://" + host
	}
	return &http.Client{Transport: t, Timeout: time.Minute}, base
}
