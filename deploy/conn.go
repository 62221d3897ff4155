package deploy

import (
	"bytes"
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

// Conn is a connection to a machine that is made anew when it was lost. It may be used by several
// goroutines.
type Conn struct {
	dialer *Dialer
	target string
	node   string            // what messages call the machine; "" is the target
	note   func(text string) // gets a line when something is tried again; nil means nobody

	mu   sync.Mutex
	now  *ssh.Client // nil before the first, and after Close
	made bool        // there was a connection
	dead chan struct{}
	sudo string // what root's commands begin with; known once there was a connection
}

// ScriptError is a script that ran on a machine and failed.
type ScriptError struct {
	Status int    // 0 if a signal ended it
	Stderr string // the last of it
}

// Error is what the script said.
func (e *ScriptError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("exit status %d", e.Status)
	}
	return e.Stderr
}

// tryAgain is the exit status of a script that another try may help (EX_TEMPFAIL).
const tryAgain = 75

// runTime bounds a script and what it takes to run it again. A restart takes 3 minutes at most by
// what the unit says.
const runTime = 6 * time.Minute

// maxOutput bounds what is kept of a script's output, in bytes.
const maxOutput = 16 << 20

// Close ends the connection.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		return nil
	}
	err := c.now.Close()
	c.now = nil
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// client returns the connection that there is, or makes one.
func (c *Conn) client(ctx context.Context) (*ssh.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != nil {
		select {
		case <-c.dead:
		default:
			return c.now, nil
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
	c.now, c.dead, c.made = client, dead, true
	return client, nil
}

// findRoot finds out how commands are run as root.
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
			return "", errDenied{fmt.Errorf("the user %s is not root on the machine, and may not use sudo without a password: %w", client.User(), err)}
		}
		return "", err
	}
	return "exec sudo -n", nil
}

// Run runs a shell script as root and returns what it wrote to standard output. If the connection
// is lost, it is run again from its begin. What it is given on standard input is the only place for
// secrets.
func (c *Conn) Run(ctx context.Context, script string, args []string, stdin []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	var out []byte
	err := c.again(ctx, func() (err error) {
		out, err = c.once(ctx, script, args, bytes.NewReader(stdin))
		return err
	})
	return out, err
}

// again does something until it is done, or fails for another reason than a lost connection. A
// machine that was never reached is not tried again: TCP has done that.
func (c *Conn) again(ctx context.Context, do func() error) error {
	retries, pause := first(c.dialer.Retries, 5), first(c.dialer.Pause, time.Second)
	for try := 1; ; try++ {
		err := do()
		var failed *ScriptError
		if err == nil || errors.As(err, &failed) && failed.Status != tryAgain || errors.As(err, new(errDenied)) {
			return err
		}
		if errors.As(err, new(*unreachableError)) && !c.reached() {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		if try > retries {
			return fmt.Errorf("%d tries failed, the last one: %w", try, err)
		}
		if c.note != nil {
			c.note(fmt.Sprintf("%v; trying again (%d of %d)", err, try, retries))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause * time.Duration(try)):
		}
	}
}

// reached reports whether there was a connection before.
func (c *Conn) reached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// once runs a script on the connection that there is.
func (c *Conn) once(ctx context.Context, script string, args []string, stdin io.Reader) ([]byte, error) {
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

// quote makes a text one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// run runs one command. Any error that is no *ScriptError is of the connection, or of ctx.
func run(ctx context.Context, client *ssh.Client, command string, stdin io.Reader) ([]byte, error) {
	s, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	out, errs := limited{max: maxOutput}, tail{max: 4 << 10}
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

// DialContext connects from the machine to an address that it can reach.
func (c *Conn) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	client, err := c.client(ctx)
	if err != nil {
		return nil, err
	}
	return client.DialContext(ctx, network, addr)
}

// limited keeps the begin of what is written. It never fails, so that the writer's pipe doesn't.
type limited struct {
	b    []byte
	max  int
	over bool
}

// Write keeps what there is room for.
func (l *limited) Write(p []byte) (int, error) {
	if room := l.max - len(l.b); len(p) > room {
		l.b, l.over = append(l.b, p[:room]...), true
	} else {
		l.b = append(l.b, p...)
	}
	return len(p), nil
}

// tail keeps the end of what is written.
type tail struct {
	b   []byte
	max int
}

// Write keeps the last bytes.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - t.max; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}
