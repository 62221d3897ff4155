package world

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Process is a program that runs on a host.
type Process struct {
	cmd *exec.Cmd
	// Stdin is the program's standard input, if Talk started it.
	Stdin io.WriteCloser
	// Stdout is the program's standard output, if Talk started it.
	Stdout io.ReadCloser
	ended  chan struct{}
	state  *os.ProcessState // set once the program has ended
}

// Start runs a program on a host, and appends its output to the file log. Close ends the program.
// The kernel kills it if this process is killed.
func (w *World) Start(host, log string, args ...string) (*Process, error) {
	return w.start(host, log, false, args)
}

// Talk is Start for a program whose standard input and output the caller uses.
func (w *World) Talk(host, log string, args ...string) (*Process, error) {
	return w.start(host, log, true, args)
}

// Run runs a program on a host until it ends, and returns its standard output. It appends standard
// error to the file log. When ctx ends, it kills the program.
func (w *World) Run(ctx context.Context, host, log string, args ...string) ([]byte, error) {
	p, err := w.start(host, log, true, args)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { p.Stop(syscall.SIGKILL, time.Second) })()
	defer p.Stdout.Close()
	_ = p.Stdin.Close() // fails if the program has ended
	out, err := io.ReadAll(p.Stdout)
	<-p.ended
	switch {
	case ctx.Err() != nil:
		return out, context.Cause(ctx)
	case err != nil:
		return out, err
	case p.state == nil || !p.state.Success():
		return out, fmt.Errorf("%s on %s: %v", args[0], host, p.state)
	}
	return out, nil
}

func (w *World) start(host, log string, talk bool, args []string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	// ip execs the program, so the process is the program itself.
	p := &Process{cmd: exec.Command("ip", append([]string{"netns", "exec", w.prefix + host}, args...)...),
		ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// Ctrl-C must reach only this process, which ends the programs in the right order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if talk {
		p.cmd.Stdout = nil
		if p.Stdin, err = p.cmd.StdinPipe(); err != nil {
			return nil, err
		}
		if p.Stdout, err = p.cmd.StdoutPipe(); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", args[0], host, err)
	}
	go func() {
		// Wait would close the pipe before everything is read.
		p.state, _ = p.cmd.Process.Wait()
		close(p.ended)
	}()
	w.processes = append(w.processes, p)
	return p, nil
}

// Ended returns a channel that is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Pid returns the process ID.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal. It fails if the program has ended.
func (p *Process) Signal(signal syscall.Signal) error { return p.cmd.Process.Signal(signal) }

// Stop sends a signal and waits until the program has ended. After limit, it kills the program. It
// can be called several times.
func (p *Process) Stop(signal syscall.Signal, limit time.Duration) {
	_ = p.cmd.Process.Signal(signal) // fails if the program has ended
	if p.Stdin != nil {
		_ = p.Stdin.Close()
	}
	select {
	case <-p.ended:
	case <-time.After(limit):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}
