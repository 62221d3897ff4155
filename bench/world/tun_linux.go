package world

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// timerfdAlarm uses a timer of the kernel, which is only some ten microseconds late. A timer of the
// Go runtime may be a millisecond late, which is as long as a round trip within a city.
type timerfdAlarm struct{ file *os.File }

func newTimerfdAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	return &timerfdAlarm{os.NewFile(uintptr(fd), "timer")}, nil // non-blocking, for the runtime's poller
}

func (a *timerfdAlarm) set(at time.Time) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(1, int64(time.Until(at))))} // 0 would stop it
	conn, err := a.file.SyscallConn()
	if err != nil {
		return // closed
	}
	_ = conn.Control(func(fd uintptr) { _ = unix.TimerfdSettime(int(fd), 0, &spec, nil) })
}

func (a *timerfdAlarm) wait() bool {
	var times [8]byte
	_, err := a.file.Read(times[:])
	return err == nil
}

func (a *timerfdAlarm) close() { _ = a.file.Close() }

// inNamespace runs f on a thread in a network namespace. Then it moves the thread back. If the
// thread ended instead, the kernel would kill the processes that it had started (PR_SET_PDEATHSIG).
func inNamespace(name string, f func() error) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	there, err := os.Open("/run/netns/" + name)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", name, err)
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return fmt.Errorf("leave namespace %s: %w", name, back) // the thread stays locked, so it is never used again
	}
	runtime.UnlockOSThread()
	return err
}

// openTUN opens a new TUN device in a namespace. Each read returns one packet without an
// additional header.
func openTUN(namespace, device string) (*os.File, error) {
	var file *os.File
	err := inNamespace(namespace, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(device)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("make device %s: %w", device, err)
		}
		file = os.NewFile(uintptr(fd), device)
		return nil
	})
	return file, err
}
