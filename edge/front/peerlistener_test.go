package front

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// startPeers starts a server for peers, as Server does. It answers with the name of the server of
// HTTP/2: "own", or "net/http".
func startPeers(t *testing.T, own bool) (addr string, l *peerListener) {
	t.Helper()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s := &Server{OwnHTTP2: own, Log: log, Panics: &Panics{Log: log}}
	conf := &tls.Config{Certificates: []tls.Certificate{newCertificate(t)}, NextProtos: []string{"h2", "http/1.1"}}
	s.PeerTLS = conf
	h := s.newPeers(plain)
	named := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, name)
		})
	}
	h.Handler = named("net/http")
	if own {
		h.http2.Handler = named("own")
	}
	done := make(chan error, 1)
	go func() { done <- h.serve() }()
	t.Cleanup(func() {
		_ = h.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("served: %v", err)
		}
	})
	return plain.Addr().String(), h.listener
}

// overBoth runs a test with the edge's own server of HTTP/2 and with net/http's.
func overBoth(t *testing.T, test func(t *testing.T, own bool, name string)) {
	t.Run("own", func(t *testing.T) { test(t, true, "own") })
	t.Run("net/http", func(t *testing.T) { test(t, false, "net/http") })
}

// dialFrom connects from the local address from.
func dialFrom(t *testing.T, from, to string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ended waits for the other side to end a connection. It reports whether that happened in time.
func ended(t *testing.T, c net.Conn) bool {
	t.Helper()
	_, err := c.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// A stranger who finds the port for peers can use up neither the memory nor the places of others.
func TestPeersInTheirHandshake(t *testing.T) { overBoth(t, testPeersInTheirHandshake) }

func testPeersInTheirHandshake(t *testing.T, own bool, name string) {
	addr, l := startPeers(t, own)
	for range maxPeerEarly {
		dialFrom(t, "127.0.0.1", addr)
	}
	testwait.Until(t, "all wait", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.waiting == maxPeerEarly
	})
	if !ended(t, dialFrom(t, "127.0.0.1", addr)) {
		t.Error("one more was taken")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
		DialContext:       (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}).DialContext}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != name {
		t.Errorf("another address: %q, %v", b, err)
	}
}

// Only the newest few connections of an edge are kept.
func TestConnectionsOfOnePeer(t *testing.T) { overBoth(t, testConnectionsOfOnePeer) }

func testConnectionsOfOnePeer(t *testing.T, own bool, name string) {
	addr, l := startPeers(t, own)
	var clients []*http.ClientConn
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	for range maxPeerConns + 3 {
		client, err := transport.NewClientConn(t.Context(), "https", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		// The response shows that this connection is counted before the next one begins.
		wantFrom(t, client, addr, name)
		clients = append(clients, client)
	}
	testwait.Until(t, "the oldest are ended", func() bool {
		return clients[0].Err() != nil && clients[1].Err() != nil && clients[2].Err() != nil
	})
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.nodes[""])
	}
	if n := count(); n != maxPeerConns {
		t.Errorf("%d connections, want %d", n, maxPeerConns)
	}
	last := clients[len(clients)-1]
	wantFrom(t, last, addr, name)
	_ = last.Close()
	testwait.Until(t, "the last is forgotten", func() bool { return count() == maxPeerConns-1 })
}

// wantFrom requests something, and checks which server answers.
func wantFrom(t *testing.T, c *http.ClientConn, addr, name string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != name {
		t.Fatalf("answered by %q, want %q: %v", b, name, err)
	}
}

// newCertificate returns a self-signed certificate.
func newCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader,
		&x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"peer.example"},
			NotAfter: time.Now().Add(time.Hour)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
