package storage

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canPlace is whether what is written to a mapping is read from the file at once.
const canPlace = true

// sendfile has a socket take n bytes of the file from at on, or as many as it takes now.
//
// Where nothing has to come from the disk, the scheduler isn't told of the call: it would give the
// processor to another thread whenever that takes more than 20 µs.
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

// read copies what the page cache has of the file from at on. It returns how many bytes it copied:
// 0 after an error.
func (v *valueFile) read(p []byte, at int64) int {
	n, _, _ := syscall.RawSyscall6(unix.SYS_PREAD64, uintptr(v.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), uintptr(at), 0, 0)
	return max(int(n), 0)
}

// write writes as much as a socket takes now.
func write(socket int, p []byte) (int, error) {
	for {
		n, err := syscall.Write(socket, p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// isRefusal reports whether sendfile can't be used with a file.
func isRefusal(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP)
}

// isDiskError reports whether an error of sendfile is the file's.
func isDiskError(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EBADMSG)
}

// memory maps the file, once. It is nil if that can't be.
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

// mem returns n bytes of the file from at on as they are mapped, once the kernel has them in
// memory; nil if that can't be.
func (v *valueFile) mem(at int64, n int) []byte {
	m := v.memory()
	if at+int64(n) > int64(len(m)) || populate(m[at:at+int64(n)]) != nil {
		return nil
	}
	return m[at : at+int64(n)]
}

// cached reports whether the kernel has n bytes of the file from at on in memory.
func (v *valueFile) cached(at int64, n int) bool {
	m := v.memory()
	return at+int64(n) <= int64(len(m)) && resident(wholePages(m[at:at+int64(n)]))
}

// evicted reports whether the kernel has let go of a part of n bytes of the file from at on.
func (v *valueFile) evicted(at int64, n int) bool {
	return at+int64(n) <= int64(len(v.memory())) && !v.cached(at, n)
}

// unmap ends a mapping; nil is none.
func unmap(b []byte) error {
	if b == nil {
		return nil
	}
	return unix.Munmap(b)
}
