//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// startSite serves over h1, h2 and h3 on one port of 127.0.0.1, and returns an agent that trusts
// it.
func startSite(t *testing.T, h http.Handler) *agent {
	t.Helper()
	dir := t.TempDir()
	if err := makeCertificates(dir, []string{hostWWW}); err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	udp, tcp := listenBoth(t)
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	web := &http.Server{Handler: h, TLSConfig: conf}
	quic := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(conf)}
	ended := make(chan error, 2)
	go func() { ended <- web.ServeTLS(tcp, "", "") }()
	go func() { ended <- quic.Serve(udp) }()
	t.Cleanup(func() {
		_ = web.Close()
		_ = quic.Close()
		_ = udp.Close()
		for range 2 {
			<-ended
		}
	})
	_, port, err := net.SplitHostPort(udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return &agent{dialer: dialer{roots, port}}
}

// A page loads over each protocol: on one connection, or on six with HTTP/1.1.
func TestVisitPage(t *testing.T) {
	for _, proto := range protocols() {
		t.Run(proto, func(t *testing.T) {
			var asked atomic.Int32
			a := startSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if r.ProtoMajor != int(proto[1]-'0') || r.Host != hostWWW {
					t.Errorf("asked over %s for %s", r.Proto, r.Host)
				}
				w.Header().Set("Cache-Status", "kaiku; hit; ttl=9, other; fwd=miss")
				_, _ = io.WriteString(w, strings.Repeat("x", bodies()["page"]))
			}))
			got := a.visit(t.Context(), visit{Proto: proto, Host: hostWWW, Addr: "127.0.0.1", Paths: paths("page", 1),
				Size: bodies()["page"]})
			if got.Err != "" || got.Cache != "kaiku; hit; ttl=9" || asked.Load() != pageObjects {
				t.Errorf("got %+v after %d requests", got, asked.Load())
			}
			if !(0 < got.Connect && got.Connect < got.First && got.First < got.Last) {
				t.Errorf("times are %+v", got)
			}
			if got = a.visit(t.Context(), visit{Proto: proto, Host: hostWWW, Addr: "127.0.0.1", Paths: []string{"/"},
				Size: 7}); got.Err == "" {
				t.Error("a body of another size is taken")
			}
		})
	}
}

// Addresses that refuse or stay silent are skipped.
func TestDialFirst(t *testing.T) {
	a := startSite(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	mute, err := net.Listen("tcp", net.JoinHostPort("127.0.0.7", a.dialer.port)) // accepts connections and stays silent
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, first := range []string{"127.0.0.6", "127.0.0.7"} {
		s, addr, err := a.dialer.dialFirst(ctx, "h2", []string{first, "127.0.0.1"}, hostWWW)
		if err != nil || addr != "127.0.0.1" {
			t.Fatalf("got %s, %v", addr, err)
		}
		if _, err := get(ctx, s, hostWWW, "/"); err != nil {
			t.Error(err)
		}
		s.close()
	}
	if _, _, err := a.dialer.dialFirst(ctx, "h2", []string{"127.0.0.6", "127.0.0.8"}, hostWWW); err == nil {
		t.Error("nobody is there, and there is a session")
	}
}

// A sweep counts versions, and the client reports them in its reply.
func TestClientSweeps(t *testing.T) {
	a := startSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "7") {
			_, _ = io.WriteString(w, "3\n")
			return
		}
		_, _ = io.WriteString(w, "4\n")
	}))
	in, out := io.Pipe()
	a.out, a.running = json.NewEncoder(out), map[int]context.CancelFunc{}
	go a.do(t.Context(), job{ID: 5, Sweep: &sweep{Host: hostWWW, Prefix: "/obj/", Addr: "127.0.0.1", N: 100}})
	var got struct {
		ID     int
		Result swept
	}
	if err := json.NewDecoder(in).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.ID != 5 || got.Result.Versions[3].N != 10 || got.Result.Versions[4].N != 90 || got.Result.Errors != 0 {
		t.Errorf("got %+v", got)
	}
}

// listenBoth listens on a port that is free for UDP and TCP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		_ = udp.Close() // the port is taken for TCP
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}
