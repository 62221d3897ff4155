package world

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// errClockBusy tells that the process can't be changed just now.
var errClockBusy = errors.New("the process is reading its clock")

// clockCode replaces the function by which the process reads clocks without the kernel's help,
// clock_gettime of the vDSO: it asks the kernel, and adds to the wall clock (and to no other) the
// eight bytes after it, in seconds.
func clockCode() []byte {
	return []byte{
		0xb8, 0xe4, 0, 0, 0, // mov eax, 228 (clock_gettime; edi is the clock, rsi the result)
		0x0f, 0x05, // syscall
		0x85, 0xc0, // test eax, eax
		0x75, 0x0e, // jnz end
		0x85, 0xff, // test edi, edi (CLOCK_REALTIME)
		0x75, 0x0a, // jnz end
		0x48, 0x8b, 0x15, 0x04, 0, 0, 0, // mov rdx, [rip+4]
		0x48, 0x01, 0x16, // add [rsi], rdx
		0xc3, // end: ret
	}
}

// StepClock sets the wall clock of a process that far from this machine's, in whole seconds, as if
// somebody set the clock of the machine that it is on. Namespaces have no wall clock of their own,
// so that the process's own view is changed: it is for programs that read clocks through the vDSO,
// as those in Go do.
func (p *Process) StepClock(by time.Duration) error {
	for range 100 {
		err := p.stepClock(by)
		if !errors.Is(err, errClockBusy) {
			return err
		}
	}
	return errClockBusy
}

func (p *Process) stepClock(by time.Duration) (err error) {
	pid := p.Pid()
	from, to, err := vdso(pid)
	if err != nil {
		return err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	image := make([]byte, to-from)
	if _, err := mem.ReadAt(image, from); err != nil {
		return fmt.Errorf("read the vDSO: %w", err)
	}
	at, size, err := clockFunction(image)
	if err != nil {
		return err
	}
	code := clockCode()
	if size < int64(len(code)+8) {
		return fmt.Errorf("the function has %d bytes only", size)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)) }()
	inside, err := anyThreadIn(pid, from, to)
	if err != nil || inside {
		return errors.Join(err, errClockBusy)
	}
	_, err = mem.WriteAt(binary.LittleEndian.AppendUint64(code, uint64(by/time.Second)), from+at)
	return err
}

// vdso finds the mapping in a process.
func vdso(pid int) (from, to int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(line, "[vdso]\n") {
			_, err := fmt.Sscanf(line, "%x-%x", &from, &to)
			return from, to, err
		}
	}
	return 0, 0, fmt.Errorf("process %d has no vDSO", pid)
}

// clockFunction finds clock_gettime in the image of a vDSO.
func clockFunction(image []byte) (at, size int64, err error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, 0, fmt.Errorf("read the vDSO: %w", err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return 0, 0, fmt.Errorf("read the vDSO: %w", err)
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			return int64(s.Value), int64(s.Size), nil
		}
	}
	return 0, 0, errors.New("the vDSO has no clock_gettime")
}

// anyThreadIn waits until all threads of a process stand, and tells whether one stands between two
// addresses (proc(5), /proc/pid/task/tid/syscall).
func anyThreadIn(pid int, from, to int64) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil {
		return false, err
	}
	for _, file := range threads {
		for end := time.Now().Add(time.Second); ; {
			b, err := os.ReadFile(file)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				break // it has ended
			}
			if err != nil {
				return false, err
			}
			f := strings.Fields(string(b))
			if f[0] == "running" {
				if time.Now().After(end) {
					return false, errClockBusy
				}
				continue
			}
			var pc int64
			if _, err := fmt.Sscanf(f[len(f)-1], "0x%x", &pc); err != nil {
				return false, err
			}
			if pc >= from && pc < to {
				return true, nil
			}
			break
		}
	}
	return false, nil
}
