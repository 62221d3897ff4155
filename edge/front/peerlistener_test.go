package front

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// startPeers starts a server behind a listener for peers, as Server does.
func startPeers(t *testing.T) (addr string, l *peerListener) {
	t.Helper()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert := newCertificate(t)
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	l = newPeerListener(plain, conf)
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_,
			_ = io.WriteString(w, r.Proto)
	})}
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	t.Cleanup(func() {
		h.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("served: %v", err)
		}
	})
	return plain.Addr().String(), l
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
func TestPeersInTheirHandshake(t *testing.T) {
	addr, l := startPeers(t)
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
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "HTTP/2.0" {
		t.Errorf("another address: %q, %v", b, err)
	}
}

// Only the newest few connections of an edge are kept.
func TestConnectionsOfOnePeer(t *testing.T) {
	addr, l := startPeers(t)
	var conns []*tls.Conn
	for range maxPeerConns + 3 {
		c := tls.Client(dialFrom(t, "127.0.0.1", addr), &tls.Config{InsecureSkipVerify: true})
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		// The response shows that this connection is counted before the next one begins.
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for i, c := range conns[:3] {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d was not ended", i)
		}
	}
	l.mu.Lock()
	n := len(l.nodes[""])
	l.mu.Unlock()
	if n != maxPeerConns {
		t.Errorf("%d connections, want %d", n, maxPeerConns)
	}
	last := conns[len(conns)-1]
	if _, err := io.WriteString(last, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(last); err != nil {
		t.Errorf("the last: %v", err)
	}
	testwait.Until(t, "the last is forgotten", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.nodes[""]) == maxPeerConns-1
	})
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
