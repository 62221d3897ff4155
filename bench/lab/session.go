//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// session is a new connection to one server.
type session interface {
	// ask sends a request. Over HTTP/1.1, the body of the previous response must have been read.
	ask(r *http.Request) (*http.Response, error)
	close()
}

// dialer opens sessions.
type dialer struct {
	roots *x509.CertPool
	port  string
}

// open connects, including the TLS handshake. It resumes no TLS session.
func (d *dialer) open(ctx context.Context, proto, addr, host string) (session, error) {
	conf := &tls.Config{RootCAs: d.roots, ServerName: host, MinVersion: tls.VersionTLS13}
	addr = net.JoinHostPort(addr, d.port)
	if proto == "h3" {
		conf.NextProtos = []string{http3.NextProtoH3}
		// The windows are about those of browsers.
		conn, err := quic.DialAddr(ctx, addr, conf,
			&quic.Config{InitialStreamReceiveWindow: 6 << 20, MaxStreamReceiveWindow: 16 << 20,
				InitialConnectionReceiveWindow: 15 << 20, MaxConnectionReceiveWindow: 24 << 20})
		if err != nil {
			return nil, err
		}
		t := &http3.Transport{DisableCompression: true}
		return &sessionH3{conn, t, t.NewClientConn(conn)}, nil
	}
	t := &http.Transport{TLSClientConfig: conf, Protocols: new(http.Protocols), DisableCompression: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}}
	t.Protocols.SetHTTP1(proto == "h1")
	t.Protocols.SetHTTP2(proto == "h2")
	connect := func(ctx context.Context) (*http.ClientConn, error) {
		return t.NewClientConn(ctx, "https", net.JoinHostPort(host, "443"))
	}
	conn, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	return &sessionTCP{conn: conn, connect: connect, major: map[string]int{"h1": 1, "h2": 2}[proto]}, nil
}

// dialFirst tries the addresses in order. It tries the next one when one has failed, or been silent
// for a quarter of a second (RFC 8305). It returns the first session.
func (d *dialer) dialFirst(ctx context.Context, proto string, addrs []string, host string) (session, string, error) {
	type result struct {
		s    session
		addr string
		err  error
	}
	results := make(chan result, len(addrs))
	timer := time.NewTimer(0)
	defer timer.Stop()
	begun, ended := 0, 0
	defer func() {
		go func() { // close sessions that come too late; ctx ends the attempts
			for range begun - ended {
				if late := <-results; late.s != nil {
					late.s.close()
				}
			}
		}()
	}()
	var failed error
	for {
		select {
		case <-timer.C:
			if begun == len(addrs) {
				continue
			}
			addr := addrs[begun]
			begun++
			go func() {
				s, err := d.open(ctx, proto, addr, host)
				results <- result{s, addr, err}
			}()
			timer.Reset(250 * time.Millisecond)
		case r := <-results:
			ended++
			if r.err == nil {
				return r.s, r.addr, nil
			}
			if failed = errors.Join(failed, r.err); ended == len(addrs) {
				return nil, r.addr, failed
			}
			timer.Reset(0)
		case <-ctx.Done():
			return nil, addrs[0], errors.Join(failed, ctx.Err())
		}
	}
}

type sessionTCP struct {
	conn    *http.ClientConn
	connect func(context.Context) (*http.ClientConn, error)
	major   int  // HTTP version
	over    bool // the server closes the connection after the previous response
}

func (s *sessionTCP) ask(r *http.Request) (*http.Response, error) {
	if s.over {
		_ = s.conn.Close()
		conn, err := s.connect(r.Context())
		if err != nil {
			return nil, err
		}
		s.conn = conn
	}
	resp, err := s.conn.RoundTrip(r)
	if err == nil && resp.ProtoMajor != s.major {
		resp.Body.Close()
		return nil, fmt.Errorf("the server speaks %s", resp.Proto)
	}
	if s.major == 1 { // over HTTP/2, requests share the session
		s.over = err == nil && resp.Close
	}
	return resp, err
}

func (s *sessionTCP) close() { _ = s.conn.Close() }

type sessionH3 struct {
	conn      *quic.Conn
	transport *http3.Transport
	client    *http3.ClientConn
}

func (s *sessionH3) ask(r *http.Request) (*http.Response, error) { return s.client.RoundTrip(r) }

func (s *sessionH3) close() {
	_ = s.conn.CloseWithError(0, "")
	_ = s.transport.Close()
}
