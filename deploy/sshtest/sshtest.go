// Package sshtest is an SSH server for tests. It listens on loopback, passes each command to a
// function of the test, and forwards TCP connections of clients.
package sshtest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Server is an SSH server. Its exported fields are set before Start.
type Server struct {
	Operator ssh.PublicKey                             // the only key of a client that it accepts
	Run      func(command string, ch ssh.Channel) int  // runs a command and returns its exit status
	Around   func(conn net.Conn, serve func(net.Conn)) // wraps serve; nil means serve(conn)

	addr string
	stop func()

	mu  sync.Mutex
	key ssh.Signer
}

// Start begins to serve on a free port of loopback. The server ends with Close or with the test.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.NewHostKey(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	if s.Around == nil {
		s.Around = func(conn net.Conn, serve func(net.Conn)) { serve(conn) }
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = func() {
		cancel()
		l.Close()
		all.Wait()
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				s.Around(c, s.serve)
			})
		}
	})
	t.Cleanup(s.Close)
}

// Close closes all connections, and waits for their commands.
func (s *Server) Close() { s.stop() }

// Addr returns the address of the server.
func (s *Server) Addr() string { return s.addr }

// HostKey returns the server's public host key.
func (s *Server) HostKey() ssh.PublicKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key.PublicKey()
}

// NewHostKey replaces the server's host key for new connections.
func (s *Server) NewHostKey(t testing.TB) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = key
}

// serve serves a connection until it ends.
func (s *Server) serve(raw net.Conn) {
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), s.Operator.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	s.mu.Lock()
	conf.AddHostKey(s.key)
	s.mu.Unlock()
	conn, channels, requests, err := ssh.NewServerConn(raw, conf)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests) // keepalives
	var all sync.WaitGroup
	defer all.Wait()
	for ch := range channels {
		switch ch.ChannelType() {
		case "session":
			all.Go(func() { s.session(ch) })
		case "direct-tcpip":
			all.Go(func() { forward(ch) })
		default:
			_ = ch.Reject(ssh.UnknownChannelType, "")
		}
	}
}

// session runs the command of a session.
func (s *Server) session(asked ssh.NewChannel) {
	ch, requests, err := asked.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	for r := range requests {
		if r.Type != "exec" {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		status := s.Run(string(r.Payload[4:]), ch)
		_, _ = ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, uint32(status)))
		return
	}
}

// forward forwards a channel to the TCP address that the client asks for.
func forward(asked ssh.NewChannel) {
	var to struct {
		Host   string
		Port   uint32
		Origin string
		From   uint32
	}
	if err := ssh.Unmarshal(asked.ExtraData(), &to); err != nil {
		return
	}
	out, err := net.Dial("tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
	if err != nil {
		_ = asked.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer out.Close()
	ch, requests, err := asked.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	go ssh.DiscardRequests(requests)
	go func() {
		_, _ = io.Copy(out, ch)
		out.Close()
	}()
	_, _ = io.Copy(ch, out)
}

// WriteKey writes a new private key to a file, and returns its public key.
func WriteKey(t testing.TB, file string) ssh.PublicKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700),
		os.WriteFile(file, pem.EncodeToMemory(block), 0o600)); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
