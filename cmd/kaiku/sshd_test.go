package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/kaiku-cdn/kaiku/deploy/sshtest"
)

// newOperator gives this process an operator's home folder: an SSH key, and a known_hosts to which
// test servers add themselves.
func newOperator(t *testing.T) (key ssh.PublicKey) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	return sshtest.WriteKey(t, filepath.Join(home, ".ssh/id_ed25519"))
}

// newSSHServer starts the SSH server of a machine that shares this machine's loopback, and returns
// its address. It accepts the operator's key, and the operator knows its host key. The only command
// that it runs is "id -u".
func newSSHServer(t *testing.T, operator ssh.PublicKey) (addr string) {
	t.Helper()
	s := &sshtest.Server{Operator: operator, Run: func(command string, ch ssh.Channel) int {
		if command != "id -u" {
			return 127
		}
		_, _ = io.WriteString(ch, "0\n")
		return 0
	}}
	s.Start(t)
	known, err := os.OpenFile(filepath.Join(os.Getenv("HOME"), ".ssh/known_hosts"), os.O_APPEND|os.O_CREATE|os.O_WRONLY,
		0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer known.Close()
	host, port, _ := net.SplitHostPort(s.Addr())
	if _, err := fmt.Fprintf(known, "[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(s.HostKey())); err != nil {
		t.Fatal(err)
	}
	return s.Addr()
}
