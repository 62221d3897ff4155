package storage

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// canPlace is whether what is written to a mapping is read from the file at once.
const canPlace = true

// sendfile has a socket take n bytes of a file from at on, or as many as it takes now.
func sendfile(socket, file int, at int64, n int) (int, error) {
	for {
		sent, err := unix.Sendfile(socket, file, &at, n)
		if err != unix.EINTR {
			return max(sent, 0), err
		}
	}
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

// inMemory reports whether the kernel has n bytes of the file from at on in memory.
func (v *valueFile) inMemory(at int64, n int) bool {
	m := v.memory()
	if at+int64(n) > int64(len(m)) {
		return true
	}
	return resident(wholePages(m[at : at+int64(n)]))
}

// unmap ends a mapping; nil is none.
func unmap(b []byte) error {
	if b == nil {
		return nil
	}
	return unix.Munmap(b)
}
