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
	// Stdin is what the program reads, if it was started with Talk.
	Stdin io.WriteCloser
	// Stdout is what it writes then.
	Stdout io.ReadCloser
	ended  chan struct{}
	state  *os.ProcessState // once it has ended
}

// Start runs a program on a host; what it prints is added to the file log. It is ended with the
// world, and by the kernel if this process is killed.
func (w *World) Start(host, log string, args ...string) (*Process, error) {
	return w.start(host, log, false, args)
}

// Talk is Start for a program that is spoken to.
func (w *World) Talk(host, log string, args ...string) (*Process, error) {
	return w.start(host, log, true, args)
}

// Run runs a program on a host to its end, and returns what it wrote to standard output; the rest
// is added to the file log. When ctx ends, the program is killed.
func (w *World) Run(ctx context.Context, host, log string, args ...string) ([]byte, error) {
	p, err := w.start(host, log, true, args)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { p.Stop(syscall.SIGKILL, time.Second) })()
	defer p.Stdout.Close()
	_ = p.Stdin.Close() // it may have ended
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
	// ip replaces itself by the program, so that the process is the program's.
	p := &Process{cmd: exec.Command("ip", append([]string{"netns", "exec", w.prefix + host}, args...)...),
		ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// Ctrl-C is for this process, which ends them in its order
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
		// Wait would close the pipe before all of it is read.
		p.state, _ = p.cmd.Process.Wait()
		close(p.ended)
	}()
	w.processes = append(w.processes, p)
	return p, nil
}

// Ended is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Pid is the id of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal. It fails if the program has ended.
func (p *Process) Signal(signal syscall.Signal) error { return p.cmd.Process.Signal(signal) }

// Stop sends a signal, waits for the end, and kills the program if it has not ended by then. It may
// be called again.
func (p *Process) Stop(signal syscall.Signal, limit time.Duration) {
	_ = p.cmd.Process.Signal(signal) // it may have ended
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
