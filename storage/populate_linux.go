package storage

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// populate makes the kernel read a mapped value into memory before it is used. A page fault would
// block a processor of Go's scheduler while the disk works, so that hits from RAM wait for cold
// reads. During a system call the scheduler uses the processor for other goroutines. On an old
// kernel, populate does nothing, and page faults read the value. It returns an error if the disk
// can't be read.
func populate(v []byte) error {
	const populateRead = 22 // MADV_POPULATE_READ, Linux 5.14
	if len(v) < 4*os.Getpagesize() {
		return nil
	}
	// If the page cache has the value, nothing has to be read. This check is cheaper than
	// populating memory that is mapped already.
	pages := wholePages(v)
	if resident(pages) {
		return nil
	}
	if err := unix.Madvise(pages, populateRead); err == unix.EFAULT || err == unix.EHWPOISON {
		return fmt.Errorf("read a mapped value: %w", err)
	}
	return nil
}

// wholePages returns v extended to the beginning of its first page.
func wholePages(v []byte) []byte {
	first := unsafe.Pointer(unsafe.SliceData(v))
	skip := int(uintptr(first) % uintptr(os.Getpagesize()))
	return unsafe.Slice((*byte)(unsafe.Add(first, -skip)), skip+len(v))
}

// resident reports whether the page cache has all of a mapped value, which begins at a page
// boundary.
func resident(whole []byte) bool {
	var in [1 + (valueHeader+chunkSize)/4096 + 1]byte
	page := os.Getpagesize()
	pages := (len(whole) + page - 1) / page
	if pages > len(in) {
		return false
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(whole))),
		uintptr(len(whole)), uintptr(unsafe.Pointer(&in)))
	return errno == 0 && !slices.ContainsFunc(in[:pages], func(r byte) bool { return r&1 == 0 })
}
