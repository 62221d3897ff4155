package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// Dialer connects to machines over SSH as the operator's ssh command would. The zero value asks no
// questions and rejects unknown host keys.
type Dialer struct {
	// Home is the folder that contains .ssh; "" means the user's home.
	Home string
	// Agent is the path of the SSH agent's socket; "" means no agent.
	Agent string
	// AcceptNew accepts host keys of machines that are not in known_hosts and adds them. A changed
	// key is always rejected.
	AcceptNew bool
	// Ask asks the operator a question. If hidden is true, the answer is not echoed. nil means that
	// there is nobody to ask.
	Ask func(question string, hidden bool) (string, error)
	// Timeout limits the time until a connection can run commands; 0 means 20 s.
	Timeout time.Duration
	// Keepalive is the interval of keepalive requests and how long a reply may take; 0 means 15 s.
	Keepalive time.Duration
	// Retries is how often an operation is retried after a lost connection; 0 means 5. Pause is the
	// wait before the first retry, and n times Pause before the nth; 0 means 1 s.
	Retries int
	Pause   time.Duration

	asking           sync.Mutex // one question at a time
	taken            map[string]string
	unlocked         map[string]ssh.Signer
	globalKnownHosts []string // empty unless system files are read
}

// FromSystem returns a Dialer for the current user, with the agent of SSH_AUTH_SOCK and the
// system's known_hosts.
func FromSystem() *Dialer {
	return &Dialer{Agent: os.Getenv("SSH_AUTH_SOCK"), globalKnownHosts: []string{"/etc/ssh/ssh_known_hosts"}}
}

// maxJumps limits the number of jump hosts, in case they form a cycle.
const maxJumps = 8

// permanentError is a failure that a retry would not change.
type permanentError struct{ error }

// Unwrap returns the underlying error.
func (e permanentError) Unwrap() error { return e.error }

// Dial connects to [user@]host[:port]. host may be an alias in ~/.ssh/config. node is the machine's
// name in questions and messages; it may be "".
func (d *Dialer) Dial(ctx context.Context, node, target string) (*Conn, error) {
	c := &Conn{dialer: d, target: target, node: node}
	if _, err := c.client(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

func (d *Dialer) home() (string, error) {
	if d.Home != "" {
		return d.Home, nil
	}
	return os.UserHomeDir()
}

// unreachableError means that no TCP connection to a machine could be made.
type unreachableError struct {
	addr string
	err  error
}

// Error says what the cause may be.
func (e *unreachableError) Error() string {
	hint := "is the address right, and the machine up?"
	var timeout net.Error
	switch {
	case errors.Is(e.err, syscall.ECONNREFUSED):
		hint = "the machine is up, but no SSH server is at this port"
	case errors.As(e.err, &timeout) && timeout.Timeout():
		hint = "is the machine up, and does its firewall allow this machine?"
	}
	return fmt.Sprintf("can't connect to %s: %v: %s", e.addr, e.err, hint)
}

// Unwrap returns the network error.
func (e *unreachableError) Unwrap() error { return e.err }

// connect opens one connection to target, through its jump hosts. node is the machine's name for
// the operator.
func (d *Dialer) connect(ctx context.Context, node, target string) (*ssh.Client, error) {
	home, err := d.home()
	if err != nil {
		return nil, err
	}
	files := []string{filepath.Join(home, ".ssh", "config")}
	if d.Home == "" {
		files = append(files, "/etc/ssh/ssh_config")
	}
	config, err := readSSHConfig(files...)
	if err != nil {
		return nil, permanentError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.Timeout, 20*time.Second))
	defer cancel()
	return d.connectVia(ctx, config, home, node, target, 0)
}

// connectVia opens a connection to target through its jump hosts.
func (d *Dialer) connectVia(ctx context.Context, config sshConfig, home, node, target string, depth int) (*ssh.Client,
	error) {
	h, err := config.resolve(target, home)
	if err != nil {
		return nil, permanentError{err}
	}
	h.node = node
	if depth > maxJumps || len(h.jumps) > maxJumps {
		return nil, permanentError{fmt.Errorf("%s: more than %d jumps: does ProxyJump form a loop?",
			target, maxJumps)}
	}
	var before *ssh.Client
	for i, j := range h.jumps {
		var next *ssh.Client
		if i == 0 {
			next, err = d.connectVia(ctx, config, home, "jump host "+j, j, depth+1)
		} else {
			var hop host
			if hop, err = config.resolve(j, home); err != nil {
				before.Close()
				return nil, permanentError{fmt.Errorf("jump %s: %w", j, err)}
			}
			hop.node = "jump host " + j
			next, err = d.connectHop(ctx, hop, before)
		}
		if err != nil {
			return nil, fmt.Errorf("jump %s: %w", j, err)
		}
		before = next
	}
	return d.connectHop(ctx, h, before)
}

// connectHop opens a connection to h, through via unless that is nil. It closes via if it fails.
func (d *Dialer) connectHop(ctx context.Context, h host, via *ssh.Client) (client *ssh.Client, err error) {
	defer func() {
		if err != nil && via != nil {
			via.Close()
		}
	}()
	check, algorithms, err := d.hostKeyCheck(h)
	if err != nil {
		return nil, permanentError{err}
	}
	keys, closeAgent, err := d.signers(h)
	if err != nil {
		return nil, permanentError{err}
	}
	defer closeAgent()
	conn, err := d.dial(ctx, h, via)
	if err != nil {
		return nil, err
	}
	var denied error
	conf := &ssh.ClientConfig{User: h.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)},
		HostKeyAlgorithms: algorithms, ClientVersion: "SSH-2.0-kaiku",
		HostKeyCallback: func(addr string, remote net.Addr, key ssh.PublicKey) error {
			denied = check(addr, remote, key)
			return denied
		}}
	// A channel through via has no deadlines.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, h.addr(), conf)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		switch {
		case denied != nil: // ssh.NewClientConn does not wrap it
			return nil, permanentError{fmt.Errorf("%s: %w", h.addr(), denied)}
		case ctx.Err() != nil:
			return nil, withProxyError(fmt.Errorf("the SSH handshake with %s timed out: %w", h.addr(), ctx.Err()), conn)
		// x/crypto/ssh has no error value for this failure.
		case strings.Contains(err.Error(), "unable to authenticate"):
			return nil, permanentError{fmt.Errorf("%s@%s accepts none of the keys: %w", h.user, h.addr(), err)}
		}
		return nil, withProxyError(fmt.Errorf("%s: %w", h.addr(), err), conn)
	}
	client = ssh.NewClient(c, channels, requests)
	go d.keepAlive(client, via)
	return client, nil
}

// dial connects to a machine's SSH port: through via unless that is nil, or by its ProxyCommand.
func (d *Dialer) dial(ctx context.Context, h host, via *ssh.Client) (net.Conn, error) {
	if via != nil {
		conn, err := via.DialContext(ctx, "tcp", h.addr())
		if errors.As(err, new(*ssh.OpenChannelError)) {
			return nil, &unreachableError{h.addr(), err}
		}
		return conn, err
	}
	if h.proxyCommand != "" {
		return runProxyCommand(h.proxyCommand, h.addr())
	}
	// Half of the timeout leaves time for the SSH handshake.
	dialer := net.Dialer{Timeout: cmp.Or(d.Timeout, 20*time.Second) / 2, KeepAlive: 15 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", h.addr())
	if err != nil && ctx.Err() == nil {
		var op *net.OpError
		// Drop the addresses, which the message already has.
		if errors.As(err, &op) && op.Err != nil {
			err = op.Err
		}
		return nil, &unreachableError{h.addr(), err}
	}
	return conn, err
}

// keepAlive sends keepalive requests until the connection ends. It closes the connection, and via,
// if no reply comes.
func (d *Dialer) keepAlive(client, via *ssh.Client) {
	ended := make(chan struct{})
	go func() {
		_ = client.Wait()
		if via != nil {
			via.Close()
		}
		close(ended)
	}()
	every := cmp.Or(d.Keepalive, 15*time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		answered := make(chan error, 1)
		go func() {
			_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
			answered <- err
		}()
		select {
		case <-ended:
			return
		case err := <-answered:
			if err == nil {
				continue
			}
		case <-time.After(every):
		}
		client.Close()
	}
}
