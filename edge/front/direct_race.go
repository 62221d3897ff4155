//go:build race

package front

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// These functions use package syscall, whose calls the race detector sees. It takes a read from a
// socket to happen after a write to one.

func read(fd int, p []byte) (int, error) {
	for {
		if n, err := syscall.Read(fd, p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

func write(fd int, p []byte) (int, error) {
	for {
		if n, err := syscall.Write(fd, p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

func writeMore(fd int, p []byte) (int, error) {
	for {
		if n, err := syscall.SendmsgN(fd, p, nil, nil, syscall.MSG_MORE); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

func writeBoth(fd int, p, q []byte) (int, error) {
	for {
		if n, err := unix.Writev(fd, [][]byte{p, q}); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
