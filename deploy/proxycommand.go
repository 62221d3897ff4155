package deploy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// maxProxyError is how much of a ProxyCommand's standard error is kept for a message, in bytes.
const maxProxyError = 1 << 10

// proxyConn is a connection over the standard input and output of a ProxyCommand (ssh_config(5)).
type proxyConn struct {
	net.Conn
	cmd    *exec.Cmd
	ended  chan struct{} // closed once the command has ended
	stderr proxyErrors
	to     proxyAddr
	end    func() error
}

// proxyAddr is the host and port that a ProxyCommand leads to.
type proxyAddr string

// Network implements net.Addr.
func (proxyAddr) Network() string { return "tcp" }

// String implements net.Addr.
func (a proxyAddr) String() string { return string(a) }

// RemoteAddr implements net.Conn. Host keys are looked up by it.
func (p *proxyConn) RemoteAddr() net.Addr { return p.to }

// runProxyCommand starts a command that leads to addr with the shell. The connection's Close ends
// the command and all that it started.
func runProxyCommand(command, addr string) (net.Conn, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, fmt.Errorf("ProxyCommand: %w", err)
	}
	for _, fd := range pair {
		syscall.CloseOnExec(fd)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "proxy"), os.NewFile(uintptr(pair[1]), "proxy")
	defer ours.Close() // FileConn has its own
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("ProxyCommand: %w", err)
	}
	p := &proxyConn{Conn: conn, cmd: exec.Command("/bin/sh", "-c", "exec "+command), to: proxyAddr(addr),
		ended: make(chan struct{})}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs, theirs, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("ProxyCommand: %w", err), conn.Close())
	}
	p.end = sync.OnceValue(func() error {
		err := conn.Close()
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended already
		return err
	})
	go func() { // ends with the command, which Close ends
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Close implements net.Conn. It returns once the command has ended.
func (p *proxyConn) Close() error {
	err := p.end()
	<-p.ended
	return err
}

// proxyErrors keeps the beginning of a command's standard error.
type proxyErrors struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (e *proxyErrors) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text.Write(b[:min(len(b), maxProxyError-e.text.Len())])
	return len(b), nil
}

// line returns what was written as one line.
func (e *proxyErrors) line() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(strings.FieldsFunc(e.text.String(), func(r rune) bool { return r < ' ' || r == 0x7f }), "; ")
}

// withProxyError adds the ProxyCommand's standard error to err, if conn is a connection of one.
func withProxyError(err error, conn net.Conn) error {
	p, ok := conn.(*proxyConn)
	if !ok {
		return err
	}
	if line := p.stderr.line(); line != "" {
		return fmt.Errorf("%w: its ProxyCommand says: %s", err, line)
	}
	return fmt.Errorf("%w (by its ProxyCommand)", err)
}
