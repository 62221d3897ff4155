// Package peer runs the programs that a benchmark compares, each on its own cores. It measures the
// CPU time and memory of a program and all processes that the program started, as the kernel
// counts them.
package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a running program.
type Process struct {
	cmd *exec.Cmd
	log bytes.Buffer // read only after the program has ended
	// ended is closed when the program has ended.
	ended chan struct{}
}

// Start runs a program on some cores, in the format of taskset -c. env is added to this process's
// environment. The program gets SIGTERM when ctx ends, and is killed 10 seconds later.
func Start(ctx context.Context, cores string, env []string, args ...string) (*Process, error) {
	// taskset execs the program, so the process is the program itself.
	p := &Process{cmd: exec.CommandContext(ctx, "taskset", append([]string{"-c", cores}, args...)...)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = stopTime
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.ended = make(chan struct{})
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Ended returns a channel that is closed when the program has ended. Before Stop, that is
// a failure.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// stopTime is how long a program has to end after SIGTERM.
const stopTime = 10 * time.Second

// Pid returns the process ID of the program.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Stop sends SIGTERM, and SIGKILL 10 seconds later. It waits until the program has ended, and
// returns what it printed.
func (p *Process) Stop() string {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopTime, func() { _ = p.cmd.Process.Kill() })
	<-p.ended
	kill.Stop()
	return p.log.String()
}

// CPU returns the CPU time that the program and its living descendants have used, in user and
// system mode (proc(5), /proc/pid/stat, fields 14 and 15). The resolution is 10 ms.
func (p *Process) CPU() (total time.Duration, err error) {
	for _, pid := range tree(p.Pid()) {
		t, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		total += t
	}
	return total, nil
}

func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from the third field on
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	// USER_HZ is 100 on every current Linux.
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

var (
	rssLine       = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)
	anonymousLine = regexp.MustCompile(`RssAnon:\s+(\d+) kB`)
)

// RSS returns the resident memory of the program and its descendants in bytes. Memory that they
// share counts once for each process.
func (p *Process) RSS() int64 { return p.memory(rssLine) }

// Anonymous returns the part of RSS that no file backs, in bytes. The kernel can't reclaim it.
func (p *Process) Anonymous() int64 { return p.memory(anonymousLine) }

// memory returns the sum of one line of /proc/pid/status over all processes, in bytes.
func (p *Process) memory(line *regexp.Regexp) (total int64) {
	for _, pid := range tree(p.Pid()) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if found := line.FindSubmatch(b); found != nil {
			n, _ := strconv.ParseInt(string(found[1]), 10, 64)
			total += n << 10
		}
	}
	return total
}

// tree returns the PIDs of a process and its descendants. The kernel lists children by thread.
func tree(pid int) []int {
	all := []int{pid}
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, t := range threads {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		for child := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(child); err == nil {
				all = append(all, tree(n)...)
			}
		}
	}
	return all
}

// Package is a program and the Debian package that has it.
type Package struct{ Program, Install string }

// Missing returns an error that says how to install the first program that is missing, or nil.
func Missing(packages ...Package) error {
	for _, p := range packages {
		if _, err := exec.LookPath(p.Program); err != nil {
			return fmt.Errorf("no %s here: apt-get install --no-install-recommends %s", p.Program, p.Install)
		}
	}
	return nil
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)*`)

// Version returns the version number that a program prints, or else the first line of its output.
func Version(args ...string) string {
	// gdnsd has no such option, but prints its version with its usage.
	out, _ := exec.Command(args[0], args[1:]...).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	if found := versionNumber.FindString(string(out)); found != "" {
		return found
	}
	return line
}

// FreePort returns a port of the loopback interface that is free now, for both UDP and TCP.
func FreePort() (string, error) {
	for {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		tcp, taken := net.Listen("tcp", conn.LocalAddr().String())
		if taken == nil {
			taken = tcp.Close()
		}
		_, port, err := net.SplitHostPort(conn.LocalAddr().String())
		if err = errors.Join(err, conn.Close()); taken == nil || err != nil {
			return port, err
		}
	}
}
