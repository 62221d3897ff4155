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

// errClockBusy means that the process can't be changed at the moment.
var errClockBusy = errors.New("the process is reading its clock")

// clockCode returns the machine code that replaces clock_gettime in the vDSO, through which a
// process reads clocks without a system call. The code calls the kernel. It adds the eight bytes
// that follow it, as seconds, to the wall clock and to no other clock.
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

// StepClock sets the wall clock of a process to this machine's time plus by, in whole seconds, as
// if the clock of its own machine was set. Namespaces have no wall clocks of their own, so
// StepClock changes what the process itself reads. That works for programs that read clocks through
// the vDSO, such as programs in Go.
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

// vdso returns the addresses of the vDSO's mapping in a process.
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

// clockFunction returns the offset and size of clock_gettime in the image of a vDSO.
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

// anyThreadIn waits until all threads of a process have stopped. It reports whether the program
// counter of one of them is between two addresses (proc(5), /proc/pid/task/tid/syscall).
func anyThreadIn(pid int, from, to int64) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil {
		return false, err
	}
	for _, file := range threads {
		for end := time.Now().Add(time.Second); ; {
			b, err := os.ReadFile(file)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				break // the thread has ended
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
