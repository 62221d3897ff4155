package storage

import (
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// populate has the kernel bring a mapped value into memory before it is touched. A page fault holds
// the processor of the scheduler while the disk works, so that hits from RAM wait behind cold
// reads; a system call gives it to others. An old kernel refuses, and faults do the work.
func populate(v []byte) {
	const populateRead = 22 // MADV_POPULATE_READ, Linux 5.14
	page := os.Getpagesize()
	if len(v) < 4*page {
		return
	}
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(v)))
	skip := int(begin % uintptr(page)) // of the first page, which is before v
	whole := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(v)), -skip)), skip+len(v))
	// What the page cache has costs no wait: to ask is cheaper than to populate again what is
	// mapped already.
	var resident [1 + (valueHeader+chunkSize)/4096 + 1]byte
	if pages := (len(whole) + page - 1) / page; pages <= len(resident) {
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(whole))), uintptr(len(whole)), uintptr(unsafe.Pointer(&resident)))
		if errno == 0 && !slices.ContainsFunc(resident[:pages], func(r byte) bool { return r&1 == 0 }) {
			return
		}
	}
	_ = unix.Madvise(whole, populateRead)
}
