package deploy

import (
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

// Dialer connects to machines over SSH as the operator's ssh would. The zero value asks nobody and
// takes no unknown host key.
type Dialer struct {
	// Home is where .ssh is; "" means the user's.
	Home string
	// Agent is the socket of the SSH agent; "" means none.
	Agent string
	// AcceptNew takes keys of machines that known_hosts doesn't have, and notes them there. A
	// changed key is refused all the same.
	AcceptNew bool
	// Ask asks the operator; what is typed is not shown if it is hidden. nil means that there is
	// nobody to ask.
	Ask func(question string, hidden bool) (string, error)
	// Timeout is for a connection, with all that it takes until commands can be run; 0 means 20 s.
	Timeout time.Duration
	// Keepalive is how often a machine has to answer, and for how long it may be silent; 0 means 15
	// s.
	Keepalive time.Duration
	// Retries is how often a lost connection is made anew for one thing that is to be done; 0 means
	// 5. Pause is how long the first one waits, the others a multiple of it; 0 means 1 s.
	Retries int
	Pause   time.Duration

	asking           sync.Mutex // one question at a time
	taken            map[string]string
	unlocked         map[string]ssh.Signer
	globalKnownHosts []string // empty unless the files of the system are read
}

// FromSystem makes a dialer for who runs this program: the agent of SSH_AUTH_SOCK, and the system's
// known_hosts.
func FromSystem() *Dialer {
	return &Dialer{Agent: os.Getenv("SSH_AUTH_SOCK"), globalKnownHosts: []string{"/etc/ssh/ssh_known_hosts"}}
}

// maxJumps bounds the machines on the way, should they go in a circle.
const maxJumps = 8

// errDenied are failures that another try does not change.
type errDenied struct{ error }

// Unwrap returns the failure.
func (e errDenied) Unwrap() error { return e.error }

// Dial connects to [user@]host[:port], where host may be one of ~/.ssh/config. node is what the
// operator calls the machine, for questions; "" is nothing.
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

// unreachableError is a machine at whose address nothing takes a connection.
type unreachableError struct {
	addr string
	err  error
}

// Error tells what may be wrong.
func (e *unreachableError) Error() string {
	hint := "is the address right, and is the machine up?"
	var timeout net.Error
	switch {
	case errors.Is(e.err, syscall.ECONNREFUSED):
		hint = "the machine is up, but no SSH server is at this port"
	case errors.As(e.err, &timeout) && timeout.Timeout():
		hint = "is the machine up, and does its firewall let this machine in?"
	}
	return fmt.Sprintf("can't connect to %s: %v: %s", e.addr, e.err, hint)
}

// Unwrap returns what the network said.
func (e *unreachableError) Unwrap() error { return e.err }

// connect makes one connection, by the way of its jumps. node is what the operator calls the
// machine.
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
		return nil, errDenied{err}
	}
	ctx, cancel := context.WithTimeout(ctx, first(d.Timeout, 20*time.Second))
	defer cancel()
	return d.through(ctx, config, home, node, target, 0)
}

// through connects to a machine by the way of its jumps.
func (d *Dialer) through(ctx context.Context, config sshConfig, home, node, target string, depth int) (*ssh.Client, error) {
	h, err := config.resolve(target, home)
	if err != nil {
		return nil, errDenied{err}
	}
	h.node = node
	if depth > maxJumps || len(h.jumps) > maxJumps {
		return nil, errDenied{fmt.Errorf("%s: more than %d jumps on the way: does ProxyJump go in a circle?", target, maxJumps)}
	}
	var before *ssh.Client
	for i, j := range h.jumps {
		var next *ssh.Client
		if i == 0 {
			next, err = d.through(ctx, config, home, "jump host "+j, j, depth+1)
		} else {
			var hop host
			if hop, err = config.resolve(j, home); err == nil {
				hop.node = "jump host " + j
				next, err = d.hop(ctx, hop, before)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("jump %s: %w", j, err)
		}
		before = next
	}
	return d.hop(ctx, h, before)
}

// hop connects to a machine, from another one unless that is nil. If it fails, the one before is
// closed.
func (d *Dialer) hop(ctx context.Context, h host, before *ssh.Client) (client *ssh.Client, err error) {
	defer func() {
		if err != nil && before != nil {
			before.Close()
		}
	}()
	check, algorithms, err := d.hostKeys(h)
	if err != nil {
		return nil, errDenied{err}
	}
	keys, closeAgent, err := d.signers(h)
	if err != nil {
		return nil, errDenied{err}
	}
	defer closeAgent()
	conn, err := d.dialTCP(ctx, h, before)
	if err != nil {
		return nil, err
	}
	var denied error
	conf := &ssh.ClientConfig{User: h.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)}, HostKeyAlgorithms: algorithms, ClientVersion: "SSH-2.0-kaiku",
		HostKeyCallback: func(addr string, remote net.Addr, key ssh.PublicKey) error {
			denied = check(addr, remote, key)
			return denied
		}}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // a channel through another machine has no deadlines
	c, channels, requests, err := ssh.NewClientConn(conn, h.addr(), conf)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		switch {
		case denied != nil: // ssh.NewClientConn hides it
			return nil, errDenied{fmt.Errorf("%s: %w", h.addr(), denied)}
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%s did not speak SSH in time: %w", h.addr(), ctx.Err())
		case strings.Contains(err.Error(), "unable to authenticate"): // x/crypto has no error of its own for it
			return nil, errDenied{fmt.Errorf("%s@%s accepts none of the keys: %w", h.user, h.addr(), err)}
		}
		return nil, fmt.Errorf("%s: %w", h.addr(), err)
	}
	client = ssh.NewClient(c, channels, requests)
	go d.keepAlive(client, before)
	return client, nil
}

// dialTCP connects to a machine's SSH server, from another machine unless that is nil.
func (d *Dialer) dialTCP(ctx context.Context, h host, before *ssh.Client) (net.Conn, error) {
	if before != nil {
		conn, err := before.DialContext(ctx, "tcp", h.addr())
		if errors.As(err, new(*ssh.OpenChannelError)) {
			return nil, &unreachableError{h.addr(), err}
		}
		return conn, err
	}
	// Half of the time, so that there is some for all else.
	dialer := net.Dialer{Timeout: first(d.Timeout, 20*time.Second) / 2, KeepAlive: 15 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", h.addr())
	if err != nil && ctx.Err() == nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Err != nil { // without the addresses, which are told beside it
			err = op.Err
		}
		return nil, &unreachableError{h.addr(), err}
	}
	return conn, err
}

// keepAlive asks a machine for a sign of life until the connection ends, and ends it if none comes.
// It ends the connection before it on the way, too.
func (d *Dialer) keepAlive(client, before *ssh.Client) {
	ended := make(chan struct{})
	go func() {
		_ = client.Wait()
		if before != nil {
			before.Close()
		}
		close(ended)
	}()
	every := first(d.Keepalive, 15*time.Second)
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
