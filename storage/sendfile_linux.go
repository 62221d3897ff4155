package storage

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canPlace means that bytes written to mapped memory can be read from the file at once.
const canPlace = true

// sendfile sends n bytes of the file from at to a socket, or as many as the socket takes now.
//
// With inMemory, nothing has to come from the disk, and Go's scheduler isn't told of the call.
// Otherwise it would give the processor to another thread if the call takes more than 20 µs.
func (v *valueFile) sendfile(socket int, at int64, n int, inMemory bool) (int, error) {
	for {
		var sent int
		var err error
		if inMemory {
			n, _, errno := syscall.RawSyscall6(unix.SYS_SENDFILE, uintptr(socket), uintptr(v.fd),
				uintptr(unsafe.Pointer(&at)), uintptr(n), 0, 0)
			if sent = int(n); errno != 0 {
				sent, err = 0, errno
			}
		} else {
			sent, err = unix.Sendfile(socket, v.fd, &at, n)
		}
		if err != unix.EINTR {
			return max(sent, 0), err
		}
	}
}

// read copies bytes of the file from at that the page cache has. It returns how many bytes it
// copied, or 0 after an error.
func (v *valueFile) read(p []byte, at int64) int {
	n, _, _ := syscall.RawSyscall6(unix.SYS_PREAD64, uintptr(v.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), uintptr(at), 0, 0)
	return max(int(n), 0)
}

// write writes as many bytes as a socket takes now.
func write(socket int, p []byte) (int, error) {
	for {
		n, err := syscall.Write(socket, p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// isRefusal reports whether an error means that sendfile doesn't work with this file.
func isRefusal(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP)
}

// isDiskError reports whether an error of sendfile comes from the file, and not from the socket.
func isDiskError(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EBADMSG)
}

// memory returns the mapped file. It maps the file once, and returns nil if that fails.
func (v *valueFile) memory() []byte {
	v.mapping.Do(func() {
		info, err := v.file.Stat()
		if err != nil {
			return
		}
		if m, err := unix.Mmap(v.fd, 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED); err == nil {
			v.mapped = m
		}
	})
	return v.mapped
}

// mem returns n bytes of the mapped file from at, after the kernel has read them into memory. It
// returns nil if that fails.
func (v *valueFile) mem(at int64, n int) []byte {
	m := v.memory()
	if at+int64(n) > int64(len(m)) || populate(m[at:at+int64(n)]) != nil {
		return nil
	}
	return m[at : at+int64(n)]
}

// cached reports whether the page cache has n bytes of the file from at.
func (v *valueFile) cached(at int64, n int) bool {
	m := v.memory()
	return at+int64(n) <= int64(len(m)) && resident(wholePages(m[at:at+int64(n)]))
}

// evicted reports whether the page cache lacks some of n bytes of the file from at.
func (v *valueFile) evicted(at int64, n int) bool {
	return at+int64(n) <= int64(len(v.memory())) && !v.cached(at, n)
}

// unmap unmaps b. It does nothing for nil.
func unmap(b []byte) error {
	if b == nil {
		return nil
	}
	return unix.Munmap(b)
}
