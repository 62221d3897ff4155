package storage

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// populate has the kernel bring a mapped value into memory before it is touched. A page fault holds
// the processor of the scheduler while the disk works, so that hits from RAM wait behind cold
// reads; a system call gives it to others. An old kernel refuses, and faults do the work. It
// returns an error if the disk can't be read.
func populate(v []byte) error {
	const populateRead = 22 // MADV_POPULATE_READ, Linux 5.14
	if len(v) < 4*os.Getpagesize() {
		return nil
	}
	// What the page cache has costs no wait: to ask is cheaper than to populate again what is
	// mapped already.
	pages := wholePages(v)
	if resident(pages) {
		return nil
	}
	if err := unix.Madvise(pages, populateRead); err == unix.EFAULT || err == unix.EHWPOISON {
		return fmt.Errorf("read a mapped value: %w", err)
	}
	return nil
}

// wholePages is v from the beginning of its first page on.
func wholePages(v []byte) []byte {
	first := unsafe.Pointer(unsafe.SliceData(v))
	skip := int(uintptr(first) % uintptr(os.Getpagesize()))
	return unsafe.Slice((*byte)(unsafe.Add(first, -skip)), skip+len(v))
}

// resident reports whether the page cache has all of a mapped value, which begins with a page.
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
