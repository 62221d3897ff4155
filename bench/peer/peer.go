// Package peer runs the programs that a benchmark compares, each on cores of its own, and tells
// what they spend: the CPU time and the memory that the kernel counts for a process and all that it
// started.
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

// Process is a program that runs.
type Process struct {
	cmd *exec.Cmd
	log bytes.Buffer // read only after the end
	// ended is closed once the program has ended.
	ended chan struct{}
}

// Start runs a program on some of the cores, as taskset takes them, with more environment than
// ours. It is ended when ctx is.
func Start(ctx context.Context, cores string, env []string, args ...string) (*Process, error) {
	// taskset replaces itself by the program, so that the process is the program's.
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

// Ended is closed when the program has ended, which it should not before Stop.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// stopTime is what a program has to end by itself.
const stopTime = 10 * time.Second

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Stop ends the program and waits until it has, and returns what it printed.
func (p *Process) Stop() string {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopTime, func() { _ = p.cmd.Process.Kill() })
	<-p.ended
	kill.Stop()
	return p.log.String()
}

// CPU is what the process and its descendants that live have spent, in user and in system mode
// (proc(5), /proc/pid/stat, fields 14 and 15), in steps of 10 ms.
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
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from the third on
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	// USER_HZ is 100 on every Linux of now
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

var (
	rssLine       = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)
	anonymousLine = regexp.MustCompile(`RssAnon:\s+(\d+) kB`)
)

// RSS is the resident memory of the process and its descendants in bytes. What they share counts
// for each.
func (p *Process) RSS() int64 { return p.memory(rssLine) }

// Anonymous is that of RSS which no file backs, so that the kernel can't take it back.
func (p *Process) Anonymous() int64 { return p.memory(anonymousLine) }

// memory adds up a line of /proc/pid/status.
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

// tree gives a process and its descendants. Each thread has children of its own.
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

// Package is a program, and what Debian has it in.
type Package struct{ Program, Install string }

// Missing tells how to install the first program that is not here, as an error.
func Missing(packages ...Package) error {
	for _, p := range packages {
		if _, err := exec.LookPath(p.Program); err != nil {
			return fmt.Errorf("no %s here: apt-get install --no-install-recommends %s", p.Program, p.Install)
		}
	}
	return nil
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)*`)

// Version gives the version number that a program prints, or else its first line.
func Version(args ...string) string {
	// gdnsd has no such option, and says its version with its usage
	out, _ := exec.Command(args[0], args[1:]...).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	if found := versionNumber.FindString(string(out)); found != "" {
		return found
	}
	return line
}

// FreePort gives a port of loopback that is free now, for UDP and for TCP.
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
