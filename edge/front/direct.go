//go:build !race

package front

import (
	"syscall"
	"unsafe"
)

// The lane calls the kernel without telling Go's scheduler, because a socket that doesn't block
// never makes a call wait. If the scheduler knew of the call, it would wake the thread that watches
// for long calls each time the process had been idle, and would hand the processor to another
// thread whenever a call takes more than 20 µs.

// read reads the bytes that have arrived.
func read(fd int, p []byte) (int, error) {
	return direct(syscall.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(p)), len(p))
}

// write writes as much as a socket takes now.
func write(fd int, p []byte) (int, error) {
	return direct(syscall.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(p)), len(p))
}

// writeMore writes as much of p as a socket takes now. More follows at once, so it sets MSG_MORE.
func writeMore(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_MORE, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// writeBoth writes p and then q, as much as a socket takes now.
func writeBoth(fd int, p, q []byte) (int, error) {
	v := [2]syscall.Iovec{{Base: unsafe.SliceData(p)}, {Base: unsafe.SliceData(q)}}
	v[0].SetLen(len(p))
	v[1].SetLen(len(q))
	return direct(syscall.SYS_WRITEV, fd, unsafe.Pointer(&v), len(v))
}

// direct makes a system call with a file descriptor and n items at an address in memory. It repeats
// the call after EINTR.
func direct(call uintptr, fd int, at unsafe.Pointer, n int) (int, error) {
	for {
		done, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(at), uintptr(n))
		switch errno {
		case 0:
			return int(done), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
