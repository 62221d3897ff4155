package deploy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Conn is an SSH connection to a machine. It reconnects when the connection is lost. Its methods
// are safe for concurrent use.
type Conn struct {
	dialer  *Dialer
	target  string
	node    string            // the machine's name in messages; "" means target
	onRetry func(text string) // called with a message before each retry; nil means never

	mu        sync.Mutex
	active    *ssh.Client // nil before the first connection and after Close
	connected bool        // a connection has succeeded before
	dead      chan struct{}
	sudo      string // prefix of commands that run as root; set by the first connection
}

// ScriptError is the failure of a script that ran on a machine.
type ScriptError struct {
	Status int    // exit status; 0 if the script was killed by a signal
	Stderr string // the last lines
}

// Error returns what the script wrote to standard error.
func (e *ScriptError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("exit status %d", e.Status)
	}
	return e.Stderr
}

// exitTempFail is the exit status of a script that may succeed if it is run again (EX_TEMPFAIL).
const exitTempFail = 75

// runTimeout limits a script including retries. A restart takes at most 3 minutes because of the
// limits in the unit.
const runTimeout = 6 * time.Minute

// maxOutput is the maximum length of a script's output that is kept, in bytes.
const maxOutput = 16 << 20

// Close closes the connection.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == nil {
		return nil
	}
	err := c.active.Close()
	c.active = nil
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// client returns the active connection, or opens one.
func (c *Conn) client(ctx context.Context) (*ssh.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active != nil {
		select {
		case <-c.dead:
		default:
			return c.active, nil
		}
	}
	client, err := c.dialer.connect(ctx, c.node, c.target)
	if err != nil {
		return nil, err
	}
	if c.sudo == "" {
		if c.sudo, err = findRoot(ctx, client); err != nil {
			client.Close()
			return nil, err
		}
	}
	dead := make(chan struct{})
	go func() {
		_ = client.Wait()
		close(dead)
	}()
	c.active, c.dead, c.connected = client, dead, true
	return client, nil
}

// findRoot returns the prefix of commands that run as root. It returns an error if the user is not
// root and may not use sudo without a password.
func findRoot(ctx context.Context, client *ssh.Client) (string, error) {
	out, err := run(ctx, client, "id -u", nil)
	if err != nil {
		return "", fmt.Errorf("run a first command: %w", err)
	}
	if strings.TrimSpace(string(out)) == "0" {
		return "exec", nil
	}
	if _, err := run(ctx, client, "sudo -n true", nil); err != nil {
		if errors.As(err, new(*ScriptError)) {
			return "", permanentError{fmt.Errorf("the user %s is neither root on the machine nor allowed to use sudo without a password: %w", client.User(), err)}
		}
		return "", err
	}
	return "exec sudo -n", nil
}

// Run runs a shell script as root and returns its standard output. If the connection is lost, Run
// reconnects and runs the script again from the start. Secrets must be passed on standard input,
// because arguments are visible to other users of the machine.
func (c *Conn) Run(ctx context.Context, script string, args []string, stdin []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	var out []byte
	err := c.retry(ctx, func() (err error) {
		out, err = c.runOnce(ctx, script, args, bytes.NewReader(stdin))
		return err
	})
	return out, err
}

// retry calls do until it succeeds or fails for a reason other than a lost connection. It does not
// retry a machine that could never be reached, because TCP has already retried.
func (c *Conn) retry(ctx context.Context, do func() error) error {
	retries, pause := cmp.Or(c.dialer.Retries, 5), cmp.Or(c.dialer.Pause, time.Second)
	for try := 1; ; try++ {
		err := do()
		var failed *ScriptError
		if err == nil || errors.As(err, &failed) && failed.Status != exitTempFail ||
			errors.As(err, new(permanentError)) {
			return err
		}
		if errors.As(err, new(*unreachableError)) && !c.wasConnected() {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		if try > retries {
			return fmt.Errorf("failed %d times; the last error: %w", try, err)
		}
		if c.onRetry != nil {
			c.onRetry(fmt.Sprintf("%v; retrying (%d of %d)", err, try, retries))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause * time.Duration(try)):
		}
	}
}

// wasConnected reports whether a connection has succeeded before.
func (c *Conn) wasConnected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected
}

// runOnce runs a script on the active connection.
func (c *Conn) runOnce(ctx context.Context, script string, args []string, stdin io.Reader) ([]byte, error) {
	client, err := c.client(ctx)
	if err != nil {
		return nil, err
	}
	var cmd strings.Builder
	cmd.WriteString(c.sudo + " sh -c " + quote(script) + " kaiku")
	for _, a := range args {
		cmd.WriteString(" " + quote(a))
	}
	return run(ctx, client, cmd.String(), stdin)
}

// quote quotes a string as one word for a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// run runs one command. An error other than a *ScriptError concerns the connection or ctx.
func run(ctx context.Context, client *ssh.Client, command string, stdin io.Reader) ([]byte, error) {
	s, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	out, errs := headBuffer{max: maxOutput}, tailBuffer{max: 4 << 10}
	s.Stdin, s.Stdout, s.Stderr = stdin, &out, &errs
	ended := make(chan error, 1)
	if err := s.Start(command); err != nil {
		return nil, err
	}
	go func() { ended <- s.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		s.Close()
		return nil, ctx.Err()
	}
	var exit *ssh.ExitError
	switch {
	case errors.As(err, &exit):
		return nil, &ScriptError{Status: exit.ExitStatus(), Stderr: strings.TrimSpace(string(errs.b))}
	case err != nil:
		return nil, fmt.Errorf("the connection was lost: %w", err)
	case out.over:
		return nil, &ScriptError{Stderr: fmt.Sprintf("it wrote more than %d bytes", maxOutput)}
	}
	return out.b, nil
}

// DialContext connects to addr from the machine, through the SSH connection.
func (c *Conn) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	client, err := c.client(ctx)
	if err != nil {
		return nil, err
	}
	return client.DialContext(ctx, network, addr)
}

// headBuffer keeps the beginning of what is written. Write never fails, so that the writer does not
// get a broken pipe.
type headBuffer struct {
	b    []byte
	max  int
	over bool
}

// Write implements io.Writer.
func (l *headBuffer) Write(p []byte) (int, error) {
	if room := l.max - len(l.b); len(p) > room {
		l.b, l.over = append(l.b, p[:room]...), true
	} else {
		l.b = append(l.b, p...)
	}
	return len(p), nil
}

// tailBuffer keeps the end of what is written.
type tailBuffer struct {
	b   []byte
	max int
}

// Write implements io.Writer.
func (t *tailBuffer) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - t.max; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}
